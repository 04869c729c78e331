"""One backtest on demand: one signal on one asset in a window, stored like any other run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import BacktestError, UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.backtests import (
    stored_signals,
)
from backtest_pipeline.pipeline.comparison import require_benchmark
from backtest_pipeline.pipeline.external import ExternalReader
from backtest_pipeline.pipeline.identity import Asked
from backtest_pipeline.pipeline.refresh import refresh_signals, require_stored
from backtest_pipeline.pipeline.traded import (
    Tradable,
    cut_to_window,
    require_window,
    trade_and_store,
)
from backtest_pipeline.pipeline.workspace import Workspace, patient
from backtest_pipeline.research.bootstrap import FEWEST_DAYS, daily_equity
from backtest_pipeline.research.selection import Intervals, bootstrap_intervals
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.dimensions import (
    active_signals,
    find_signal,
    known_symbols,
)


@patient
def backtest_once(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    *,
    signal: str,
    asset: str,
    tf: str,
    asked: Asked,
    rebuild: bool = False,
) -> Mapping[str, Any]:
    """Bring the partition up to date, trade the signal in the window, and store the run.

    Indicators use the whole history before the window; trades use the window alone.

    Args:
        workspace: the open store.
        source: where bars or features come from; what it does not have may be stored already.
        signal: name or type of a signal.
        asset, tf: the partition.
        asked: costs, sizing, stops, direction, window, benchmark, funding.
        rebuild: compute also what has not changed.

    Returns:
        The run's row with its metrics, as `storage.runs.runs_by_id` gives it.

    Raises:
        UnknownName: for a signal, asset or timeframe that there is not.
        InvalidInput: for a window without enough bars, or funding rates that do not cover them.
        StoreOvertaken: where others kept replacing what it was computed from.
        BacktestError: where the partition has no result, and why.
    """
    require_window(asked.window)
    partition = Partition(asset, timeframe(tf).name)
    with workspace.database.begin() as connection:
        chosen = find_signal(active_signals(connection), signal)
        known = known_symbols(connection)
    offered = source.symbols()
    if asset not in offered and asset not in known:
        raise UnknownName("asset", asset, (*offered, *known))
    require_benchmark(asked.benchmark, (*offered, *known))
    wanted = dict.fromkeys([asset, asked.benchmark])
    partitions = [Partition(name, partition.timeframe) for name in wanted if name in offered]
    if partitions:
        for report in refresh_signals(workspace, source, partitions, rebuild=rebuild):
            require_stored(report)

    single = load_single(workspace, partition, chosen.name, asked)
    (run,) = trade_and_store(
        workspace, chosen, single, asked, "run", refreshed=True, rebuild=rebuild
    )
    return run


def load_single(
    workspace: Workspace, partition: Partition, signal_name: str, asked: Asked
) -> Tradable:
    """One signal of a partition in a window, as it is stored.

    Raises:
        InvalidInput: for a window without enough bars, or funding rates that do not cover them.
        BacktestError: where no signals are stored, or they are not those of the stored features.
    """
    stored = stored_signals(workspace, [partition]).load(partition.timeframe, [partition.asset])
    if partition.asset not in stored.upstream:
        raise BacktestError(f"{partition}: no signals are stored; refresh signals first")
    chosen = [signal.name == signal_name for signal in stored.block.signals]
    return cut_to_window(
        stored.block.panel, stored.block.events[chosen], stored.block.inputs, asked
    )


def run_intervals(
    workspace: Workspace, run: Mapping[str, Any], *, risk_free: float = 0.0
) -> Intervals | None:
    """5th and 95th percentile of what a run's days could have come to as well, by metric.

    They are drawn anew each time, with one seed: 500 draws take less than reading what they would
    be stored as. None for a run of too few days.

    Args:
        workspace: the open store.
        run: a row of `storage.runs.runs_by_id`.
        risk_free: return of cash a day, a fraction, that the run assumes.
    """
    equity = workspace.artifacts.read_table(
        run["artifact_uri"], "equity.parquet", filters=[("run_id", "=", str(run["run_id"]))]
    )
    ts, values = (equity[name].to_numpy() for name in ("ts", "equity"))
    returns = daily_equity(ts.astype("M8[us]").astype(np.int64), values).returns
    if len(returns) < FEWEST_DAYS:
        return None
    return bootstrap_intervals(returns, risk_free=risk_free)
