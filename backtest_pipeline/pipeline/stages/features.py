"""Stage `features`: from stored bars to `cmc_features`, its EMA table, and snapshots of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from backtest_pipeline.market.features import EMA_PERIODS, READ_COLUMNS, resume_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.runs.daily_bars import DailyBars
from backtest_pipeline.pipeline.stage import Batches, Outcome, Remade, Status
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.panels import (
    PanelBatch,
    extended_chains,
    lost_artifacts,
    rows_of_dataset,
    stale_partitions,
)
from backtest_pipeline.pipeline.versions import FEATURES_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.marks import DAILY, MARK_COLUMNS
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.provenance import whole_blocks
from backtest_pipeline.storage.tables.datasets import read_versions, stored_versions
from backtest_pipeline.storage.tables.dimensions import asset_ids
from backtest_pipeline.storage.tables.feature_checkpoints import FeatureCheckpoint, read_checkpoints
from backtest_pipeline.storage.tables.feature_writing import ComputedFeatures, write_features

# The columns that strategies and the simulation read, and that a run's snapshot holds.
SNAPSHOT_COLUMNS = (*READ_COLUMNS, *(f"ema_{period}" for period in EMA_PERIODS))


def stored_bars(workspace: Workspace, partitions: Sequence[Partition]) -> Batches[PanelBatch]:
    """Lazy batches of the stored bars."""
    return Batches(
        tuple(partitions), lambda tf, assets: load_batch(workspace, "bars", tf, assets, BAR_COLUMNS)
    )


def stored_features(workspace: Workspace, partitions: Sequence[Partition]) -> Batches[PanelBatch]:
    """Features as they are stored, as far as computations read them."""
    return Batches(
        tuple(partitions),
        lambda tf, assets: load_batch(workspace, "features", tf, assets, SNAPSHOT_COLUMNS),
    )


def load_batch(
    workspace: Workspace, dataset: str, tf: str, assets: Sequence[str], columns: Sequence[str]
) -> PanelBatch:
    """A batch of a stored dataset; an asset that is not stored has no rows and no version."""
    with workspace.database.begin() as connection:
        versions = read_versions(connection, dataset, [Partition(a, tf) for a in assets])
    stored = {p.asset: version for p, version in versions.items()}
    uris = {asset: stored[asset].uris if asset in stored else () for asset in assets}
    return PanelBatch(read_panel(workspace.artifacts, tf, uris, columns), stored)


def load_daily(workspace: Workspace, panel: Panel) -> DailyBars:
    """The stored daily bars that mark runs on these bars; none for bars not longer than a day."""
    if panel.timeframe.days <= 1:
        return DailyBars()
    daily = load_batch(workspace, "features", DAILY, panel.assets, MARK_COLUMNS)
    return DailyBars.of(panel, daily.panel, daily.inputs)


def codes_with_daily(
    workspace: Workspace, code: str, partitions: Sequence[Partition]
) -> dict[Partition, str]:
    """The `code_version` of each partition's runs, as `DailyBars.code_of` returns it."""
    longer = {p: Partition(p.asset, DAILY) for p in partitions if timeframe(p.timeframe).days > 1}
    with workspace.database.begin() as connection:
        stored = read_versions(connection, "features", longer.values())
    daily = DailyBars(stored={partition.asset: version for partition, version in stored.items()})
    return {p: daily.code_of(code, p.asset) if p in longer else code for p in partitions}


class FeaturesStage:
    """Stores features in Postgres, and the columns that computations read as snapshots."""

    name = "features"
    tables = ("cmc_features", "cmc_ema_multi_tf_u", "dataset_versions", "dataset_snapshots")

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @property
    def remade(self) -> Remade:
        return features_again

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        return stale_partitions(self._workspace, self.name, "bars", FEATURES_CODE, partitions)

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return rows_of_dataset(self._workspace, "bars", partitions)

    def store(self, batch: PanelBatch, *, rebuild: bool) -> Iterable[Outcome]:
        """Compute and append features of new bars; recompute all where older bars changed."""
        known = [asset for asset in batch.panel.assets if asset in batch.inputs]
        if not known:
            return [_outcome(partition, None) for partition in batch.partitions]
        with self._workspace.database.begin() as connection:
            ids = asset_ids(connection, known)
        bars = batch.panel.select(known)
        checkpoints = {} if rebuild else self._checkpoints(batch, ids)
        while bars.assets:
            bars = bars.select(self._store(batch, bars, ids, checkpoints, rebuild))
            checkpoints = {}
        lengths = dict(zip(batch.panel.assets, batch.panel.lengths.tolist(), strict=True))
        return [
            _outcome(p, lengths[p.asset] if p.asset in batch.inputs else None)
            for p in batch.partitions
        ]

    def _checkpoints(
        self, batch: PanelBatch, ids: Mapping[str, int]
    ) -> dict[str, FeatureCheckpoint]:
        """The checkpoints made by this code from bars that were only appended to since."""
        tf = batch.panel.timeframe.name
        with self._workspace.database.arrow() as connection, connection.cursor() as cursor:
            checkpoints = read_checkpoints(cursor, tf, ids)
            stored = stored_versions(
                cursor, self.name, tf, {asset: ids[asset] for asset in checkpoints}
            )
        gone = lost_artifacts(self._workspace, stored.values())
        return {
            asset: checkpoint
            for asset, checkpoint in checkpoints.items()
            if checkpoint.code_version == FEATURES_CODE
            and checkpoint.input_generation == batch.inputs[asset].generation
            and asset in stored
            and gone.isdisjoint(stored[asset].uris)
        }

    def _store(
        self,
        batch: PanelBatch,
        bars: Panel,
        ids: Mapping[str, int],
        checkpoints: Mapping[str, FeatureCheckpoint],
        rebuild: bool,
    ) -> tuple[str, ...]:
        """Store the features of these bars; returns the assets to recompute in full after all."""
        done = [checkpoints[a].rows.n_rows if a in checkpoints else 0 for a in bars.assets]
        features, standing = resume_features(
            bars,
            np.array(done, np.int64),
            _standing(bars.assets, checkpoints),
            whole_blocks(bars.lengths),
        )
        written = write_features(
            self._workspace.database,
            ComputedFeatures(
                features,
                input_versions={a: batch.inputs[a].version for a in bars.assets},
                code_version=FEATURES_CODE,
                since={asset: checkpoint.rows for asset, checkpoint in checkpoints.items()},
                input_generations={a: batch.inputs[a].generation for a in bars.assets},
                standing=dict(zip(bars.assets, standing, strict=True)),
            ),
            ids,
            keep_files=lambda rows, chains: extended_chains(
                self._workspace, "features", rows, SNAPSHOT_COLUMNS, chains
            ),
            replace=rebuild,
            made_from="bars",
        )
        return written.unmatched


def features_again(
    workspace: Workspace, partitions: Sequence[Partition], _rebuild: bool
) -> tuple[Batches[PanelBatch], FeaturesStage]:
    """The stage and its batches, made in any process."""
    return stored_bars(workspace, partitions), FeaturesStage(workspace)


def _standing(assets: Sequence[str], checkpoints: Mapping[str, FeatureCheckpoint]) -> np.ndarray:
    """The state of each asset's recursive averages, float64 `(n_assets, n_averages, 2)`.

    Zero for an asset without a checkpoint.
    """
    n_averages = max((len(c.standing) for c in checkpoints.values()), default=0)
    standing = np.zeros((len(assets), n_averages, 2))
    for row, asset in zip(standing, assets, strict=True):
        if asset in checkpoints:
            row[:] = checkpoints[asset].standing
    return standing


def _outcome(partition: Partition, rows: int | None) -> Outcome:
    if rows is None:
        return Outcome(partition, Status.NO_INPUT, detail="no bars are stored; refresh bars first")
    if rows == 0:
        return Outcome(partition, Status.EMPTY, detail=f"no complete {partition.timeframe} bar")
    return Outcome(partition, Status.STORED, rows)
