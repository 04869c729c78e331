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

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.research.optimizer import (
    Combination,
    Objective,
    Search,
    best_of,
    searchers,
)
from backtest_pipeline.research.splits import Fold, Length, Mode, walk_forward_splits
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.orders import LONG_EXIT, SHORT_EXIT
from backtest_pipeline.simulation.windows import NO_SIGNALS, events_by_params, simulate_windows
from backtest_pipeline.strategies.grid import ParameterSpace

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


@dataclass(frozen=True)
class Schedule:
    """The folds that are asked for; see `splits.walk_forward_splits`.

    Each test window begins where the one before ends, so that the tests are one contiguous
    stretch of bars, each used once.
    """

    train: Length = 365
    test: Length = 90
    mode: Mode = "rolling"
    purge: int = 0
    embargo: float = 0.01

    def folds(self, panel: Panel, asset: str) -> tuple[Fold, ...]:
        """The folds of an asset's bars.

        Raises:
            InvalidInput: where its bars do not fill one; the message counts those missing.
        """
        index = utc_index(panel.ts[panel.rows_of(asset)])
        try:
            return walk_forward_splits(
                index,
                self.train,
                self.test,
                mode=self.mode,
                purge=self.purge,
                embargo=self.embargo,
            )
        except InvalidInput as error:
            raise InvalidInput(f"{asset}|{panel.timeframe.name}: {error}") from error


@dataclass(frozen=True)
class Task:
    """One fold of one asset.

    Attributes:
        asset: its name.
        fold: its windows, positions among the asset's bars.
    """

    asset: str
    fold: Fold

    def windows(self, panel: Panel) -> tuple[slice, slice]:
        """Rows of the panel to train on and to test on."""
        first = panel.rows_of(self.asset).start
        train, test = self.fold.train, self.fold.test
        return (
            slice(first + int(train[0]), first + int(train[-1]) + 1),
            slice(first + int(test[0]), first + int(test[-1]) + 1),
        )


@dataclass(frozen=True)
class Chosen:
    """What a fold came to.

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
        batch = _simulated(panel, trains, asked, question)
        evaluated(batch, asked)
        shape = (-1, len(tasks))
        found = question.objective.scores(batch.metrics).reshape(shape)
        for t, combinations in enumerate(asked):
            own = found[: len(combinations), t]
            seeking[t].tell(combinations, own)
            tried[t] += combinations
            scores[t] += own.tolist()
            for name, values in metrics[t].items():
                values += batch.metrics[name].reshape(shape)[: len(combinations), t].tolist()
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


def blocks_of_tasks(tasks: Sequence[Task], question: Question) -> list[list[Task]]:
    """The tasks in blocks whose training windows fit into BLOCK_BYTES at once, in their order."""
    width = min(question.search.most, question.space.size)
    blocks: list[list[Task]] = []
    room = 0
    for task in tasks:
        size = 8 * width * len(task.fold.train)
        if size > room or not blocks:
            blocks.append([])
            room = BLOCK_BYTES
        blocks[-1].append(task)
        room -= size
    return blocks


def stitched(
    panel: Panel, tasks: Sequence[Task], chosen: Sequence[Chosen], question: Question
) -> tuple[Panel, np.ndarray]:
    """The out-of-sample bars of each asset as one stretch, and the signals of each fold's choice.

    What is held after the last bar of a test window leaves at the next open, the first of the
    next window, at the costs of any exit, and no signal of a window acts in another. A fold
    without a choice trades nothing.

    Args:
        panel, question: as `choose` takes them.
        tasks: the folds, those of an asset in the order of time.
        chosen: what they came to.

    Returns:
        The bars, and uint8 events `(1, n_rows)` on them.
    """
    distinct = sorted({c.combination for c in chosen if c.combination is not None})
    params = [question.space.params(combination) for combination in distinct]
    events = events_by_params(panel, question.space.strategy, params)
    traded, keep = np.zeros(len(panel), np.uint8), np.zeros(len(panel), bool)
    last_of = {task.asset: task for task in tasks}
    # Signals that are late close as late, so that those that would come after are moot.
    closing = 1 + question.config.delay_bars
    for task, choice in zip(tasks, chosen, strict=True):
        window = task.windows(panel)[1]
        keep[window] = True
        if choice.combination is not None:
            traded[window] = events[distinct.index(choice.combination), window]
        if task is not last_of[task.asset]:  # what is held at the very end is marked, as in a run
            traded[max(window.start, window.stop - closing) : window.stop] |= LONG_EXIT | SHORT_EXIT
    return panel.take(keep), traded[keep][None, :]
