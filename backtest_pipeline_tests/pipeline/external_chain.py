"""The chain on a user's own table of features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stage import StageReport
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.external.probe import FeatureTable

PARTS = tuple(Partition(f"ID-{i}", tf) for tf in ("1D", "1W") for i in (1, 2, 3))


@contextmanager
def on(store: Workspace, table: FeatureTable) -> Iterator[Workspace]:
    """The store with features taken from a table."""
    try:
        yield replace(store, external=table)
    finally:
        table.close()


def take(
    store: Workspace,
    table: FeatureTable,
    partitions: tuple[Partition, ...] = PARTS,
    *,
    rebuild: bool = False,
) -> dict[str, StageReport]:
    """The whole chain; the report of each stage."""
    with on(store, table) as workspace:
        reader = ExternalReader(workspace)
        reports = list(refresh_signals(workspace, reader, partitions, rebuild=rebuild))
        reports.append(refresh_backtests(workspace, partitions, SimulationConfig()))
        return {report.stage: report for report in reports}
