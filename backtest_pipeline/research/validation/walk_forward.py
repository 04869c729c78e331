"""Walk-forward: choose parameters on a training window, judge the choice on the bars after it.

Signals and indicators are computed on the whole history first, which they may since they know no
later bar; then it is cut into windows, and each begins flat with the starting cash (pitfalls of
the method: Pardo 2008; Lopez de Prado 2018, chapters 7 and 11).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.look_ahead.look_ahead import require_no_look_ahead
from backtest_pipeline.research.validation.choices import Method
from backtest_pipeline.research.validation.optimizer import (
    Combination,
    Objective,
    Search,
    best_of,
    searchers,
)
from backtest_pipeline.research.validation.schedule import Task
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.orders import LONG_EXIT, SHORT_EXIT
from backtest_pipeline.simulation.windows import NO_SIGNALS, events_by_params, simulate_windows
from backtest_pipeline.strategies.grid import ParameterSpace

WALK_FORWARD_VERSION = 1
"""Raise it when other windows are cut, other parameters chosen in them, or folds stitched anew."""
FOLD_METRICS: tuple[str, ...] = (
    "total_return",
    "sharpe",
    "sortino",
    "calmar",
    "max_drawdown",
    "trade_count",
)
BLOCK_BYTES = 100_000_000
"""Equity of training windows that is held at a time."""
BLOCK_FOLDS: Mapping[Method, int] = {"grid": 8, "random": 8, "tpe": 2}
"""Folds that are chosen at once, and lost where that is stopped: a fraction of a second by a grid,
some seconds by the estimator, which draws for each fold on its own and gains nothing by width."""


@dataclass(frozen=True)
class Chosen:
    """The result of a fold.

    Attributes:
        combination: the best in training; None where the objective was undefined for all.
        score: the objective of the best; NaN where there is none.
        n_combinations: how many were evaluated.
        train, test: FOLD_METRICS of the choice, NaN where undefined.
    """

    combination: Combination | None
    score: float
    n_combinations: int
    train: Mapping[str, float]
    test: Mapping[str, float]


@dataclass(frozen=True)
class Question:
    """What a walk-forward looks for.

    Attributes:
        space: the parameters to choose from.
        search: how.
        objective: what the best has most of.
        config: costs, sizing, stops, direction and starting cash.
        funding: rates by symbol, in place of the flat rate.
    """

    space: ParameterSpace
    search: Search
    objective: Objective
    config: SimulationConfig
    funding: FundingRates | None = None


Evaluated = Callable[[BatchResult, Sequence[Sequence[Combination]]], None]
"""Told of every simulation of training windows, and the combinations of each window in it."""


def unheard(_batch: BatchResult, _combinations: Sequence[Sequence[Combination]]) -> None:
    """A listener that does nothing."""


def choose(
    panel: Panel, tasks: Sequence[Task], question: Question, evaluated: Evaluated = unheard
) -> list[Chosen]:
    """Choose on each fold's training bars, then trade its test bars with the choice.

    What becomes of a fold depends on no other fold, and its choice on no bar after its training.

    Args:
        panel: bars from each asset's first on, with the columns that stops and sizing read.
        tasks: the folds; each round of the search is one simulation of all of them.
        question: what to look for.
        evaluated: told of every simulation of training windows.

    Returns:
        One per task.

    Raises:
        InvalidInput: for a space without a combination that makes sense, or too large for a grid.
    """
    trains, tests = (list(side) for side in zip(*(t.windows(panel) for t in tasks), strict=True))
    seeking = searchers(question.space, question.search, len(tasks))
    tried: list[list[Combination]] = [[] for _ in tasks]
    scores: list[list[float]] = [[] for _ in tasks]
    metrics: list[dict[str, list[float]]] = [{m: [] for m in FOLD_METRICS} for _ in tasks]
    while any(asked := [list(searcher.ask()) for searcher in seeking]):
        simulated = _simulated(panel, trains, asked, question)
        evaluated(simulated, asked)
        shape = (-1, len(tasks))
        found = question.objective.scores(simulated.metrics).reshape(shape)
        for t, combinations in enumerate(asked):
            own = found[: len(combinations), t]
            seeking[t].tell(combinations, own)
            tried[t] += combinations
            scores[t] += own.tolist()
            for name, values in metrics[t].items():
                values += simulated.metrics[name].reshape(shape)[: len(combinations), t].tolist()
    best = [best_of(c, np.array(s)) for c, s in zip(tried, scores, strict=True)]
    picked = [[] if b is None else [tried[t][b]] for t, b in enumerate(best)]
    tested = _simulated(panel, tests, picked, question).metrics
    nothing: dict[str, float] = dict.fromkeys(FOLD_METRICS, math.nan)
    return [
        Chosen(
            combination=None if b is None else tried[t][b],
            score=math.nan if b is None else scores[t][b],
            n_combinations=len(tried[t]),
            train=nothing if b is None else {m: v[b] for m, v in metrics[t].items()},
            test=nothing if b is None else {m: float(tested[m][t]) for m in FOLD_METRICS},
        )
        for t, b in enumerate(best)
    ]


def _simulated(
    panel: Panel,
    windows: Sequence[slice],
    combinations: Sequence[Sequence[Combination]],
    question: Question,
) -> BatchResult:
    """Each window with its own combinations; run r of a window trades the r-th of them."""
    distinct = sorted({c for own in combinations for c in own})
    row_of = {combination: row for row, combination in enumerate(distinct)}
    params = [question.space.params(c) for c in distinct]
    runs = np.full((max(1, *map(len, combinations)), len(windows)), NO_SIGNALS)
    for w, own in enumerate(combinations):
        runs[: len(own), w] = [row_of[c] for c in own]
    events = events_by_params(panel, question.space.strategy, params)
    return simulate_windows(panel, events, windows, runs, question.config, funding=question.funding)


def batches_of_tasks(tasks: Sequence[Task], question: Question) -> list[list[Task]]:
    """The tasks in their order, in batches of at most BLOCK_FOLDS whose training windows fit into
    BLOCK_BYTES at once.
    """
    width = min(question.search.most, question.space.size)
    most = BLOCK_FOLDS[question.search.resolved(question.space)]
    batches: list[list[Task]] = []
    room = 0
    for task in tasks:
        size = 8 * width * len(task.fold.train)
        if not batches or size > room or len(batches[-1]) == most:
            batches.append([])
            room = BLOCK_BYTES
        batches[-1].append(task)
        room -= size
    return batches


def out_of_sample(
    panel: Panel, tasks: Sequence[Task], chosen: Sequence[Chosen], question: Question
) -> tuple[Panel, np.ndarray]:
    """What `stitched` gives, of a strategy that does not look ahead under anything it chose.

    Raises:
        LooksAhead: for one that does.
    """
    sets: dict[str, dict[Combination, None]] = {}
    for task, choice in zip(tasks, chosen, strict=True):
        if choice.combination is not None:
            sets.setdefault(task.asset, {})[choice.combination] = None
    for asset, combinations in sets.items():
        params = [question.space.params(combination) for combination in combinations]
        require_no_look_ahead(panel, question.space.strategy, params, asset)
    return stitched(panel, tasks, chosen, question)


def stitched(
    panel: Panel, tasks: Sequence[Task], chosen: Sequence[Chosen], question: Question
) -> tuple[Panel, np.ndarray]:
    """The out-of-sample bars of each asset as one stretch, and the signals of each fold's choice.

    What is held after the last bar of a test window leaves at the next open, the first of the
    next window, at the costs of any exit, and no signal of a window acts in another. Where there
    are bars between the two that no fold tests, it leaves at the open of its window's last bar
    instead, so that nothing is earned on them. A fold without a choice trades nothing.

    Args:
        panel, question: as `choose` takes them.
        tasks: the folds, those of an asset in the order of time.
        chosen: their results.

    Returns:
        The bars, and uint8 events `(1, n_rows)` on them.
    """
    distinct = sorted({c.combination for c in chosen if c.combination is not None})
    params = [question.space.params(combination) for combination in distinct]
    events = events_by_params(panel, question.space.strategy, params)
    traded, keep = np.zeros(len(panel), np.uint8), np.zeros(len(panel), bool)
    # Signals that are late close as late, so that those that would come after are moot.
    closing = 1 + question.config.delay_bars
    for task, choice, later in zip(tasks, chosen, [*tasks[1:], None], strict=True):
        window = task.windows(panel)[1]
        keep[window] = True
        if choice.combination is not None:
            traded[window] = events[distinct.index(choice.combination), window]
        if later is not None and later.asset == task.asset:
            adjacent = later.windows(panel)[1].start == window.stop
            begin = window.stop - closing - (0 if adjacent else 1)
            traded[max(window.start, begin) : window.stop] |= LONG_EXIT | SHORT_EXIT
        # What is held at the very end of an asset is marked, as in a run.
    return panel.take(keep), traded[keep][None, :]
