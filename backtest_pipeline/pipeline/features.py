"""Features: from stored bars to `cmc_features`, the EMAs beside it, and their snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backtest_pipeline.market.features import EMA_PERIODS, READ_COLUMNS, build_features
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.batches import Batches, Outcome, Status
from backtest_pipeline.pipeline.blocks import (
    PanelBlock,
    panel_table,
    read_panel,
    rows_of_dataset,
    stale_partitions,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.datasets import read_versions
from backtest_pipeline.storage.dimensions import asset_ids
from backtest_pipeline.storage.features import write_features
from backtest_pipeline.storage.provenance import code_version

# What strategies and the simulation read; a run's snapshot is these columns.
SNAPSHOT_COLUMNS = (*READ_COLUMNS, *(f"ema_{period}" for period in EMA_PERIODS))


def stored_bars(workspace: Workspace, partitions: Sequence[Partition]) -> Batches[PanelBlock]:
    """Bars as they are stored."""
    return Batches(
        tuple(partitions), lambda tf, assets: load_block(workspace, "bars", tf, assets, BAR_COLUMNS)
    )


def load_block(
    workspace: Workspace, dataset: str, tf: str, assets: Sequence[str], columns: Sequence[str]
) -> PanelBlock:
    """A block of a stored dataset; an asset that is not stored has no rows and no version."""
    with workspace.database.begin() as connection:
        versions = read_versions(connection, dataset, [Partition(a, tf) for a in assets])
    stored = {p.asset: version for p, version in versions.items()}
    uris = {asset: stored[asset].uris if asset in stored else () for asset in assets}
    return PanelBlock(read_panel(workspace, tf, uris, columns), stored)


def features_of(bars: Batches[PanelBlock]) -> Batches[PanelBlock]:
    """All features of these bars."""
    return bars.map(lambda block: block.computed(build_features))


class FeaturesStage:
    """Stores features in Postgres, and what computations read of them as snapshots."""

    name = "features"

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._code = code_version("market")

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        return stale_partitions(self._workspace, self.name, "bars", self._code, partitions)

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return rows_of_dataset(self._workspace, "bars", partitions)

    def store(self, block: PanelBlock, *, rebuild: bool) -> Iterable[Outcome]:
        """New rows are appended where the stored ones are unchanged; else all are replaced."""
        database = self._workspace.database
        known = [asset for asset in block.panel.assets if asset in block.inputs]
        if not known:
            return [_outcome(partition, None) for partition in block.partitions]
        panel = block.panel.select(known)
        uris = {}
        if len(panel):
            table = panel_table(panel, SNAPSHOT_COLUMNS)
            folder = f"features/{panel.timeframe.name}"
            uri = self._workspace.artifacts.put_snapshot(folder, table)
            uris = {a: (uri,) for a, n in zip(known, panel.lengths, strict=True) if n}
        with database.begin() as connection:
            ids = asset_ids(connection, known)
        write_features(
            database,
            panel,
            ids,
            input_versions={asset: block.inputs[asset].version for asset in known},
            code_version=self._code,
            uris=uris,
            replace=rebuild,
        )
        lengths = dict(zip(panel.assets, panel.lengths.tolist(), strict=True))
        return [_outcome(p, lengths.get(p.asset)) for p in block.partitions]


def _outcome(partition: Partition, rows: int | None) -> Outcome:
    if rows is None:
        return Outcome(partition, Status.EMPTY, detail="no bars are stored; refresh bars first")
    if rows == 0:
        return Outcome(partition, Status.EMPTY, detail=f"no complete {partition.timeframe} bar")
    return Outcome(partition, Status.STORED, rows)
