"""The refresh of bars, features, signals and backtests without Dagster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.stage import StageReport, require_stored
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.pipeline.stages.bars import BarsStage, bar_batches
from backtest_pipeline.pipeline.stages.columns.columns_stage import refresh_columns
from backtest_pipeline.pipeline.stages.external.external_features import (
    ExternalFeaturesStage,
    external_features,
)
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.stages.features import FeaturesStage, stored_bars, stored_features
from backtest_pipeline.pipeline.stages.signals import SignalsStage
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.stages.tradable_signals import stored_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.marks import DAILY
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.statistics import analyze_keys
from backtest_pipeline.storage.tables.datasets import DatasetVersion, read_versions
from backtest_pipeline.strategies.known_strategies import look_again


def refresh_features(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    partitions: Sequence[Partition],
    *,
    rebuild: bool = False,
) -> Iterator[StageReport]:
    """Refresh the features of these partitions, yielding each stage's report as it ends.

    They are built from the bars of a source, or copied from the external feature table.
    """
    how = _how(workspace, rebuild)
    if isinstance(source, ExternalReader):
        taken = external_features(source, partitions)
        yield run_stage(taken, ExternalFeaturesStage(workspace, source), **how)
    else:
        reader = SourceReader(source, sorted({p.asset for p in partitions}), workspace)
        yield run_stage(bar_batches(reader, partitions), BarsStage(workspace, reader), **how)
        bars = stored_bars(workspace, partitions)
        yield run_stage(bars, FeaturesStage(workspace), **how)


def refresh_to_trade(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    symbols: Sequence[str],
    tf: str,
    *,
    rebuild: bool = False,
) -> None:
    """Refresh what runs of these symbols are computed from.

    That is their features, and those of the daily bars that mark their runs, as `stored_days`
    names them.

    Raises:
        NotEnoughBars, BacktestError: as `require_stored`.
    """
    partitions = [Partition(symbol, tf) for symbol in symbols]
    partitions += stored_days(workspace.database, partitions)
    for report in refresh_features(workspace, source, partitions, rebuild=rebuild):
        require_stored(report)


def stored_days(database: Database, partitions: Sequence[Partition]) -> list[Partition]:
    """The stored daily bars that mark runs of these partitions and are not among them.

    They have to be refreshed with them: runs on bars that are ahead of the days would be marked at
    the closes of their bars alone.
    """
    longer = (p for p in partitions if timeframe(p.timeframe).days > 1)
    days = {Partition(partition.asset, DAILY) for partition in longer} - set(partitions)

    def read() -> dict[Partition, DatasetVersion]:
        with database.begin() as connection:
            return read_versions(connection, "features", sorted(days))

    stored = database.retrying("stored_days", read)
    return [partition for partition, version in stored.items() if version.n_rows]


def refresh_signals(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    partitions: Sequence[Partition],
    *,
    rebuild: bool = False,
) -> Iterator[StageReport]:
    """Refresh features and signals of these partitions, yielding each stage's report.

    The features of `stored_days` are refreshed with them, and are in the reports too.
    """
    look_again()
    with_days = [*partitions, *stored_days(workspace.database, partitions)]
    yield from refresh_features(workspace, source, with_days, rebuild=rebuild)
    stage = SignalsStage(workspace)
    names = columns_read(stage.signals)
    yield from refresh_columns(workspace, partitions, names, rebuild=rebuild)
    conditions = stage.computed(stored_features(workspace, partitions), rebuild=rebuild)
    yield run_stage(conditions, stage, **_how(workspace, rebuild))


def refresh_backtests(
    workspace: Workspace,
    partitions: Sequence[Partition],
    config: SimulationConfig,
    *,
    rebuild: bool = False,
) -> StageReport:
    """Refresh the backtests of these partitions' stored signals."""
    return run_stage(
        stored_signals(workspace, partitions),
        BacktestsStage(workspace, config),
        **_how(workspace, rebuild),
    )


def _how(workspace: Workspace, rebuild: bool) -> dict[str, Any]:
    return {
        "rebuild": rebuild,
        "pool": workspace.pool,
        "progress": workspace.progress,
        "retrying": workspace.database.retrying,
        "analyze": partial(analyze_keys, workspace.database),
    }
