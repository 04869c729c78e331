"""One backtest on demand: one signal on one asset in a window, stored like any other run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np

from backtest_pipeline.market.errors import BacktestError, InvalidInput, UnknownName
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.backtests import (
    FEWEST_BARS,
    BacktestBlock,
    StoredSignals,
    prepare_publication,
    publish,
    stored_signals,
)
from backtest_pipeline.pipeline.batches import StageReport
from backtest_pipeline.pipeline.comparison import compare_with, require_benchmark, rows_in
from backtest_pipeline.pipeline.external import ExternalReader
from backtest_pipeline.pipeline.identity import Asked, Window
from backtest_pipeline.pipeline.publication import identify_runs
from backtest_pipeline.pipeline.refresh import refresh_signals
from backtest_pipeline.pipeline.significance import deflate_partitions
from backtest_pipeline.pipeline.workspace import Workspace, patient
from backtest_pipeline.research.bootstrap import FEWEST_DAYS, daily_equity
from backtest_pipeline.research.selection import Intervals, bootstrap_intervals
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import with_config_columns
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.datasets import mark_stale, require_versions
from backtest_pipeline.storage.dimensions import (
    active_signals,
    asset_ids,
    find_signal,
    known_symbols,
)
from backtest_pipeline.storage.runs import current_runs


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
        The run's row with its metrics, as `storage.runs.current_runs` gives it.

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
            _require(report)

    single = load_single(workspace, partition, chosen.name, asked)
    started_at = datetime.now(UTC)
    benchmark = compare_with(workspace, single.panel, asked)
    block = BacktestBlock(
        batch=None,
        signals=(chosen,),
        inputs=single.stored.block.inputs,
        upstream=single.stored.upstream,
        assets=(asset,),
        too_short=(),
        timeframe=tf,
        started_at=started_at,
    )
    (identity,) = identify_runs((chosen,), (asset,), tf, block.inputs, asked, benchmark.versions)
    run = _stored_run(workspace, identity.run_id)
    uri = run["artifact_uri"] if run else None
    kept = uri if uri and workspace.artifacts.is_intact(uri) else None
    workspace.progress("backtest", 0, 1)
    if rebuild or not kept:
        with workspace.database.begin() as connection:
            ids = asset_ids(connection, [asset])
        batch = simulate_batch(
            single.panel,
            single.events,
            asked.config,
            funding=asked.funding,
            benchmark=benchmark.equity,
        )
        published = prepare_publication(
            workspace, batch, block, ids, asked, "run", benchmark.versions, kept
        )
        used = {a: version.version for a, version in single.stored.upstream.items()}
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            publish(cursor, published)
            require_versions(cursor, "signals", tf, ids, used)
            if asked.window == Window():
                # The run took the place of one that a refresh had published: were the data of
                # that one to come back, the refresh must not take its own for current.
                mark_stale(cursor, "backtests", ids[asset], tf)
    else:
        deflate_partitions(workspace, [partition])  # others may have been tried since
    run = _stored_run(workspace, identity.run_id)
    workspace.progress("backtest", 1, 1)
    assert run is not None  # noqa: S101  (it was just published)
    return run


@dataclass(frozen=True)
class SingleRun:
    """What one run trades.

    Attributes:
        stored: the partition's signals, and the versions that they were made from.
        panel: bars of the window, with what stops and sizing read.
        events: uint8 `(1, n_rows)`, the chosen signal on them.
    """

    stored: StoredSignals
    panel: Panel
    events: np.ndarray


def load_single(
    workspace: Workspace, partition: Partition, signal_name: str, asked: Asked
) -> SingleRun:
    """One signal of a partition in a window, as it is stored.

    Raises:
        InvalidInput: for a window without enough bars, or funding rates that do not cover them.
        BacktestError: where no signals are stored, or they are not those of the stored features.
    """
    stored = stored_signals(workspace, [partition]).load(partition.timeframe, [partition.asset])
    if partition.asset not in stored.upstream:
        raise BacktestError(f"{partition}: no signals are stored; refresh signals first")
    keep = rows_in(stored.block.panel, asked.window)
    # Indicators remember what was before the window, so they come before the cut.
    panel = with_config_columns(stored.block.panel, asked.config).take(keep)
    if len(panel) < FEWEST_BARS:
        raise InvalidInput(too_few_bars(stored.block.panel, partition, asked.window, len(panel)))
    chosen = [signal.name == signal_name for signal in stored.block.signals]
    events = np.ascontiguousarray(stored.block.events[chosen][:, keep])
    return SingleRun(stored, panel, events)


def run_intervals(
    workspace: Workspace, run: Mapping[str, Any], *, risk_free: float = 0.0
) -> Intervals | None:
    """5th and 95th percentile of what a run's days could have come to as well, by metric.

    They are drawn anew each time, with one seed: 500 draws take less than reading what they would
    be stored as. None for a run of too few days.

    Args:
        workspace: the open store.
        run: a row of `storage.runs.current_runs`.
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


def _stored_run(workspace: Workspace, run_id: UUID) -> Mapping[str, Any] | None:
    with workspace.database.begin() as connection:
        return next(iter(current_runs(connection, run_ids=[run_id])), None)


def _require(report: StageReport) -> None:
    for outcome in report.outcomes:
        if outcome.detail:
            raise BacktestError(f"{outcome.partition}: {report.stage}: {outcome.detail}")


def require_window(window: Window) -> None:
    """Raises InvalidInput where the window ends before it begins."""
    if window.start and window.end and window.end <= window.start:
        raise InvalidInput(
            f"the window ends on {window.end}, which is not after its start {window.start}; "
            "the end is the day after the last"
        )


def too_few_bars(panel: Panel, partition: Partition, window: Window, n: int) -> str:
    """Why `n` bars in a window are not enough, and which bars there are."""
    if len(panel) == 0:
        return f"{partition} has no complete bar"
    first, last = panel.ts[[0, -1]].view("M8[us]").astype("M8[D]")
    asked = f"from {window.start or 'the beginning'} to {window.end or 'the end'}"
    return (
        f"{partition} has {n} bars {asked}, and a backtest needs {FEWEST_BARS}; "
        f"its bars run from {first} to {last}"
    )
