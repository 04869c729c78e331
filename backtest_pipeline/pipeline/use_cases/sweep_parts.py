"""What is kept of a sweep's batches, computed here or by the workers of a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.errors import WorkGivenUp
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.pools.spread import is_spread, pieces_of
from backtest_pipeline.pipeline.pools.work_pool import PoolWork, done
from backtest_pipeline.pipeline.ranking.ledger import trials_of
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.stages.batch_files import BatchFiles
from backtest_pipeline.pipeline.stages.benchmark_assets import rows_in
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.robustness.neighbourhood import best_first
from backtest_pipeline.research.validation.selection import Tried, clustered
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.simulation.metrics.daily import daily_returns
from backtest_pipeline.simulation.sweep import runs_a_batch, sweep_batches
from backtest_pipeline.strategies.grid import Number, ParameterGrid
from backtest_pipeline.strategies.registry import strategy_of


@dataclass(frozen=True)
class Swept:
    """What is kept of a batch of combinations.

    Attributes:
        metrics: one float64 array per metric, a value for each combination.
        tried: of their daily returns, what says how far the best can be luck.
        trials: rows of the ledger; None where there is none.
    """

    metrics: Mapping[str, np.ndarray]
    tried: Tried
    trials: pa.Table | None


@dataclass(frozen=True)
class Sweeping:
    """What all combinations of a sweep have in common.

    Attributes:
        n_trials: how many combinations there are.
        terms: costs, window and the other terms of the runs.
        daily: daily bars to mark equity by, if any.
        metric: by which the best is chosen.
        versions: of the bars by asset, for the ledger; None where there is none.
    """

    n_trials: int
    terms: RunTerms
    daily: Panel | None
    metric: str
    versions: Mapping[str, str] | None


@dataclass(frozen=True)
class SweepWanted:
    """A sweep as it is asked for in another process.

    Attributes:
        files: of the bars.
        strategy: its name.
        names: the parameters whose values the combinations are.
        sweeping: the rest.
    """

    files: BatchFiles
    strategy: str
    names: tuple[str, ...]
    sweeping: Sweeping


Combinations = tuple[tuple[Number, ...], ...]
Listen = Callable[[int, int], None]


def swept_parts(
    panel: Panel,
    grid: ParameterGrid,
    sweeping: Sweeping,
    workspace: Workspace | None,
    files: BatchFiles | None,
    listen: Listen,
) -> list[Swept]:
    """All batches of a sweep, in the order of the grid.

    Args:
        panel: features of one asset.
        grid: the combinations.
        sweeping: what they have in common.
        workspace: the open store whose pool computes large sweeps; None for none.
        files: of the panel, where it was read from the store.
        listen: called with the number of combinations done and their total.
    """
    keep = rows_in(panel, sweeping.terms.window)
    n_simulated = len(grid) * int(keep.sum())
    if workspace is None or files is None or not is_spread(workspace.pool, n_simulated):
        threads = None if files is None or workspace is None else workspace.pool.size
        return list(_parts(panel, grid, 0, sweeping, listen, threads))
    size = runs_a_batch(len(marks_of(panel.take(keep), sweeping.daily)))
    batches = [grid.combinations[i : i + size] for i in range(0, len(grid), size)]
    items: list[tuple[int, Combinations]] = []
    first = 0
    for piece in pieces_of(workspace.pool, batches):
        combinations = tuple(c for batch in piece for c in batch)
        items.append((first, combinations))
        first += len(combinations)
    wanted = SweepWanted(files, grid.strategy.name, grid.names, sweeping)
    again = partial(sweep_again, wanted)
    found: dict[int, list[Swept]] = {}
    n_done = 0
    listen(0, len(grid))
    work = PoolWork(f"sweep {grid.strategy.name}", partial(again, workspace), again)
    for (first, combinations), parts in done(workspace.pool, work, items):
        found[first] = parts
        n_done += len(combinations)
        listen(n_done, len(grid))
    return [part for first in sorted(found) for part in found[first]]


def sweep_again(
    wanted: SweepWanted, workspace: Workspace, item: tuple[int, Combinations]
) -> list[Swept]:
    """Some batches of a sweep, computed by a worker.

    Args:
        wanted: the sweep.
        workspace: the store of this process.
        item: the combinations, and how many there are before them.
    """
    first, combinations = item
    batch = wanted.files.read(workspace)
    grid = ParameterGrid(strategy_of(wanted.strategy), wanted.names, combinations, 0)

    def listen(_done: int, _total: int) -> None:
        if workspace.given_up.is_set():
            raise WorkGivenUp(f"sweep {wanted.strategy}: it was ended before all were done")

    panel = batch.own.on(batch.panel)
    return list(_parts(panel, grid, first, wanted.sweeping, listen, 1))


def _parts(
    panel: Panel,
    grid: ParameterGrid,
    first: int,
    sweeping: Sweeping,
    listen: Listen,
    threads: int | None,
) -> Iterator[Swept]:
    """Each batch of the grid, whose combinations are the `first` and following of the sweep."""
    terms, metric = sweeping.terms, sweeping.metric
    drawn = clustered(sweeping.n_trials)
    batches = sweep_batches(
        panel,
        grid,
        terms.config,
        keep=rows_in(panel, terms.window),
        funding=terms.funding,
        daily=sweeping.daily,
        listen=listen,
        threads=threads,
    )
    for combinations, batch in batches:
        returns = daily_returns(batch.equity, batch.marks.ts // DAY_US)
        ranked = best_first(pd.Series(batch.metrics[metric], name=metric))
        last = first + len(combinations)
        sampled = np.sort(drawn[(first <= drawn) & (drawn < last)]) - first
        best_here = int(ranked[0]) if len(ranked) else 0
        tried = Tried.of(returns, sampled, best_here, terms.config.risk_free)
        first = last
        trials = None
        if sweeping.versions is not None:
            trials = trials_of(
                batch,
                [dict(zip(grid.names, values, strict=True)) for values in combinations],
                strategy=grid.strategy.name,
                dataset_versions=sweeping.versions,
                terms=terms,
                source="sweep",
            )
        yield Swept(batch.metrics, tried, trials)


def joined(parts: Sequence[Swept], best: int, n_trials: int) -> Tried:
    """What is kept of the daily returns of the whole sweep; `best` is the position of the best."""
    ends = np.cumsum([len(next(iter(part.metrics.values()))) for part in parts])
    best_part = int(np.searchsorted(ends, best, side="right"))
    return Tried.join([part.tried for part in parts], best_part, clustered(n_trials))
