"""Walk-forward: choose parameters on a training window, judge the choice on the bars after it.

Conditions and indicators are computed on the whole history first, which they may since they know
no later bar; then it is cut into windows, each with the starting cash. A training window begins
flat. A test window begins with the position that the choice, traded since the first bar, holds by
then: a rule that is nearly always in the market would otherwise be judged by its waiting for the
next entry (pitfalls of the method: Pardo 2008; Lopez de Prado 2018, chapters 7 and 11).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.validation.choices import Method
from backtest_pipeline.research.validation.optimizer import (
    Combination,
    Objective,
    Search,
    best_of,
    searchers,
)
from backtest_pipeline.research.validation.schedule import Task
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.simulation.orders import HOLD
from backtest_pipeline.simulation.rules import RulesOfRuns
from backtest_pipeline.simulation.windows import (
    NO_SIGNALS,
    Candidates,
    candidates,
    position_bits,
    sides_held,
    simulate_windows,
)
from backtest_pipeline.strategies.grid import ParameterSpace

WALK_FORWARD_VERSION = 2
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
        flat_starts: whether test windows begin flat as well.
    """

    space: ParameterSpace
    search: Search
    objective: Objective
    config: SimulationConfig
    funding: FundingRates | None = None
    flat_starts: bool = False


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
    tested = _simulated(panel, tests, picked, question, carried=not question.flat_starts).metrics
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
    *,
    carried: bool = False,
) -> BatchResult:
    """Each window with its own combinations; run r of a window trades the r-th of them.

    Windows begin flat, or with `carried` with what their only combination holds by then.
    """
    distinct = sorted({c for own in combinations for c in own})
    row_of = {combination: row for row, combination in enumerate(distinct)}
    runs = np.full((max(1, *map(len, combinations)), len(windows)), NO_SIGNALS)
    for w, own in enumerate(combinations):
        runs[: len(own), w] = [row_of[c] for c in own]
    tried = _candidates(panel, distinct, question)
    holds = None
    if carried:
        holds = _carried(panel, tried, windows, runs[0], question)[None, :]
        windows = [_with_bar_before(panel, window) for window in windows]
    return simulate_windows(
        panel, tried, windows, runs, question.config, holds=holds, funding=question.funding
    )


def _candidates(
    panel: Panel, combinations: Sequence[Combination], question: Question
) -> Candidates:
    params = [question.space.params(combination) for combination in combinations]
    return candidates(panel, question.space.strategy, params, question.config)


def _carried(
    panel: Panel, tried: Candidates, windows: Sequence[slice], sets: np.ndarray, question: Question
) -> np.ndarray:
    """Sides that are held from the windows' first opens on; 0 where no set of them is traded."""
    sides = np.zeros(len(windows), np.int8)
    trading = np.flatnonzero(sets != NO_SIGNALS)
    rows = [windows[w].start for w in trading.tolist()]
    own = sets[trading].tolist()
    sides[trading] = sides_held(panel, tried, rows, own, question.config, question.funding)
    return sides


def _with_bar_before(panel: Panel, window: slice) -> slice:
    """The window and the bar before it, at whose close its first position is decided."""
    return slice(window.start - int(window.start not in panel.offsets), window.stop)


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


@dataclass(frozen=True)
class Stitched:
    """The test windows of each asset as one stretch of bars.

    Attributes:
        bars: the test bars, with what stops and sizing read, and the bar before the first of them.
        events: uint8 `(1, n_rows)`, conditions of each fold's choice, and the position that is
            carried into each window.
        rules: stops and cooldown of each fold's choice.
    """

    bars: Panel
    events: np.ndarray
    rules: RulesOfRuns


def trade_stitched(
    runs: Sequence[Stitched],
    config: SimulationConfig,
    funding: FundingRates | None = None,
    daily: Panel | None = None,
) -> BatchResult:
    """Stitched runs of several strategies on the same test bars, simulated at once.

    Args:
        runs: at least one.
        config: as they were chosen by.
        funding: rates by symbol, in place of the flat rate.
        daily: daily bars to mark equity by, see `simulation.marks.marks_of`.
    """
    distinct = tuple(dict.fromkeys(one for run in runs for one in run.rules.distinct))
    of = [np.array([distinct.index(r) for r in run.rules.distinct])[run.rules.of] for run in runs]
    rules = RulesOfRuns(distinct, np.concatenate(of), runs[0].rules.stretches)
    bars = runs[0].bars.with_columns({n: c for run in runs for n, c in run.bars.columns.items()})
    events, marks = np.concatenate([run.events for run in runs]), marks_of(bars, daily)
    return simulate_batch(bars, events, config, rules=rules, funding=funding, marks=marks)


def stitched(
    panel: Panel, tasks: Sequence[Task], chosen: Sequence[Chosen], question: Question
) -> Stitched:
    """The out-of-sample bars of each asset as one stretch, traded by each fold's choice in turn.

    At the first open of a window the account comes to hold what its choice, traded since the
    asset's first bar, holds by then; where it holds that already, nothing is traded, and its stop
    stays where it is. A fold without a choice is flat, and with `flat_starts` every window begins
    flat. Where there are bars between two windows that no fold tests, the account is flat from the
    open of the last bar of the first on, so that nothing is earned on them.

    Args:
        panel, question: as `choose` takes them.
        tasks: the folds, those of an asset in the order of time.
        chosen: their results.
    """
    distinct = sorted({c.combination for c in chosen if c.combination is not None})
    tried = _candidates(panel, distinct, question)
    sets = np.array(
        [NO_SIGNALS if c.combination is None else distinct.index(c.combination) for c in chosen]
    )
    windows = [task.windows(panel)[1] for task in tasks]
    sides = np.zeros(len(tasks), np.int8)
    if not question.flat_starts:
        sides = _carried(panel, tried, windows, sets, question)
    positions = position_bits(sides)
    traded, keep = np.zeros(len(panel), np.uint8), np.zeros(len(panel), bool)
    ends: list[int] = []
    before: tuple[str, slice] | None = None
    for task, window, choice, position in zip(tasks, windows, sets, positions, strict=True):
        if choice != NO_SIGNALS:
            traded[window] = tried.events[choice, window]
        if before is not None and before[0] == task.asset:
            _hand_over(traded, before[1], window, position, question.config.delay_bars)
        elif not question.flat_starts:
            begin = _with_bar_before(panel, window)
            traded[begin.start], keep[begin] = position, True
        keep[window] = True
        ends.append(int(keep.sum()))
        before = task.asset, window
    rules = tried.rules or (question.config.rules,)
    return Stitched(
        with_config_columns(panel, question.config, rules).take(keep),
        traded[keep][None, :],
        RulesOfRuns(rules, np.maximum(sets, 0)[None, :], np.array([0, *ends])),
    )


def _hand_over(
    traded: np.ndarray, before: slice, window: slice, position: np.uint8, delay_bars: int
) -> None:
    """Write what the account comes to hold at a window's first open into the window before it.

    Late conditions of that window, which would be seen in this one, are dropped.
    """
    traded[max(before.stop - delay_bars, before.start) : before.stop] = 0
    if before.stop != window.start:  # flat from the open of the last bar on
        traded[max(before.stop - 2, before.start) : before.stop] = HOLD
    traded[before.stop - 1] = position
