"""Features: from stored bars to `cmc_features`, the EMAs beside it, and their snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from backtest_pipeline.market.features import EMA_PERIODS, FEATURES, build_features
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
from backtest_pipeline.storage.datasets import DatasetVersion, read_versions
from backtest_pipeline.storage.features import write_features
from backtest_pipeline.storage.provenance import code_version, combined, content_versions

# What strategies and the simulation read; a run's snapshot is these columns.
SNAPSHOT_COLUMNS = (
    *BAR_COLUMNS,
    *("rsi_7", "rsi_14", "rsi_21", "atr_14", "adx_14"),
    *(f"ema_{period}" for period in EMA_PERIODS),
)


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
    panel = read_panel(workspace, tf, assets, versions, columns)
    return PanelBlock(panel, {p.asset: version for p, version in versions.items()})


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

    def store(self, block: PanelBlock) -> Iterable[Outcome]:
        """New rows are appended where the bars only grew; else the partition is written anew."""
        panel = block.panel
        contents = content_versions(panel, [f.name for f in FEATURES])
        with self._workspace.database.begin() as connection:
            stored = read_versions(connection, self.name, block.partitions)
        present = [asset for asset, n in zip(panel.assets, panel.lengths, strict=True) if n]
        uri = None
        if present:
            table = panel_table(panel.select(present), SNAPSHOT_COLUMNS)
            folder = f"features/{panel.timeframe.name}"
            uri = self._workspace.artifacts.put_snapshot(folder, table)
        versions: dict[Partition, DatasetVersion] = {}
        written_until = np.full(len(panel.assets), np.iinfo(np.int64).min)
        for i, partition in enumerate(block.partitions):
            bars = block.inputs.get(partition.asset)
            if bars is None:
                continue
            generation = combined(bars.generation, self._code)
            before = stored.get(partition)
            if before is not None and before.generation == generation and before.last_ts:
                written_until[i] = before.last_ts
            versions[partition] = DatasetVersion(
                version=contents[partition.asset],
                input_version=bars.version,
                code_version=self._code,
                generation=generation,
                n_rows=bars.n_rows,
                first_ts=bars.first_ts,
                last_ts=bars.last_ts,
                uri=uri if bars.n_rows else None,
            )
        write_features(self._workspace.database, panel, written_until, versions)
        segment = panel.segment_of_row
        new_rows = np.bincount(
            segment, weights=panel.ts > written_until[segment], minlength=len(panel.assets)
        )
        return [
            _outcome(partition, versions.get(partition), int(n))
            for partition, n in zip(block.partitions, new_rows, strict=True)
        ]


def _outcome(partition: Partition, version: DatasetVersion | None, new_rows: int) -> Outcome:
    if version is None:
        return Outcome(partition, Status.EMPTY, detail="no bars are stored; refresh bars first")
    if version.n_rows == 0:
        return Outcome(partition, Status.EMPTY, detail=f"no complete {partition.timeframe} bar")
    return Outcome(partition, Status.STORED, new_rows)
