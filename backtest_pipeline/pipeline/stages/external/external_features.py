"""Stage `features` on an external table: its rows as snapshots, a version per asset and timeframe.

The alternative is to build features from bars, see `stages.features`. Later stages read the
snapshots of either, and see no difference.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.features import EMA_PERIODS, READ_COLUMNS, with_indicators
from backtest_pipeline.market.observed import usable_rows
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import Timeframe, timeframe
from backtest_pipeline.market.validation import RowIssue
from backtest_pipeline.pipeline.stage import Batches, Outcome, Remade, Status
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader, TableLook
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS
from backtest_pipeline.pipeline.stages.panels import lost_artifacts, stored_contents
from backtest_pipeline.pipeline.versions import EXTERNAL_FEATURES_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import AssetInfo, require_known
from backtest_pipeline.storage.external.assets import SOURCE
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.external.rows import read_emas, read_panel
from backtest_pipeline.storage.external.watermarks import (
    read_watermarks,
    write_watermarks,
)
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import content_versions
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    QualityCount,
    read_versions,
    replace_quality,
    write_versions,
)
from backtest_pipeline.storage.tables.dimensions import register_assets
from backtest_pipeline.storage.tables.timeframes import declare_timeframes

_log = logging.getLogger(__name__)
UNUSABLE_STAMP = "unusable_stamp"
EMA_COLUMNS = tuple(f"ema_{period}" for period in EMA_PERIODS)


@dataclass(frozen=True)
class ExternalBatch:
    """Rows of the external table.

    Attributes:
        panel: the valid rows.
        issues: why the others were skipped, and what was flagged on valid rows.
        absent: assets without a row in the table at this timeframe.
    """

    panel: Panel
    issues: tuple[RowIssue, ...]
    absent: tuple[str, ...]


def external_features(
    reader: ExternalReader, partitions: Sequence[Partition]
) -> Batches[ExternalBatch]:
    """Lazy batches of these partitions of the external table, in the columns computations read.

    Loading raises BarsError for a duplicate key.
    """

    def load(tf: str, assets: Sequence[str]) -> ExternalBatch:
        present = [asset for asset in assets if Partition(asset, tf) in reader.watermarks]
        ids = [reader.ids[asset] for asset in present]
        raw = _read(reader.table, tf, present, ids)
        panel, issues = usable_rows(raw, time.time_ns() // 1000)
        panel = panel.with_columns(_emas(reader.table, panel, ids))
        absent = tuple(asset for asset in assets if asset not in present)
        return ExternalBatch(panel, issues, absent)

    return Batches(tuple(partitions), load)


def whole_columns(
    reader: ExternalReader, timeframe: Timeframe, asset: str, columns: Sequence[str]
) -> Panel:
    """Columns of one asset as the external table has them, with the EMAs computations read.

    Raises:
        UnknownName: for an unknown asset or column.
    """
    require_known([asset], reader.symbols())
    known = reader.table.features.columns
    in_table = [name for name in columns if name not in EMA_COLUMNS or name in known]
    for name in in_table:
        if name not in known:
            raise UnknownName("feature", name, known)
    ids = [reader.ids[asset]]
    names = tuple(dict.fromkeys([*in_table, *READ_COLUMNS]))
    panel = read_panel(reader.table, timeframe, [asset], ids, names)
    return panel.with_columns(_emas(reader.table, panel, ids) | {n: panel[n] for n in in_table})


def _read(table: FeatureTable, tf: str, assets: Sequence[str], ids: Sequence[int]) -> Panel:
    if assets:
        return read_panel(table, timeframe(tf), assets, ids, READ_COLUMNS)
    return _without_rows(tf, (), READ_COLUMNS)


def _without_rows(tf: str, assets: Sequence[str], columns: Sequence[str]) -> Panel:
    nothing = {name: np.empty(0) for name in columns}
    offsets = np.zeros(len(assets) + 1, np.int64)
    return Panel(timeframe(tf), tuple(assets), offsets, np.empty(0, np.int64), nothing)


def _emas(table: FeatureTable, panel: Panel, ids: Sequence[int]) -> dict[str, np.ndarray]:
    """The EMAs of the external EMA table; computed from closes for an asset without any."""
    computed = with_indicators(panel, EMA_COLUMNS)
    columns = {name: computed[name] for name in EMA_COLUMNS}
    if table.emas is None or not ids:
        return columns
    stored = read_emas(table, panel, ids, EMA_PERIODS)
    segment = panel.segment_of_row
    for period, values in stored.items():
        has = np.bincount(segment, np.isfinite(values), minlength=len(ids)) > 0
        columns[f"ema_{period}"] = np.where(has[segment], values, columns[f"ema_{period}"])
    return columns


class ExternalFeaturesStage:
    """Stores the external table's columns that computations read, as snapshots only."""

    name = "features"
    tables = ("dim_assets", "dataset_versions", "dataset_snapshots", "external_watermarks")

    def __init__(self, workspace: Workspace, reader: ExternalReader) -> None:
        self._workspace = workspace
        self._reader = reader
        self._code = f"{EXTERNAL_FEATURES_CODE}, table {reader.table.identity}"

    @property
    def remade(self) -> Remade:
        return partial(external_features_again, self._reader.look)

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        """The partitions whose watermark moved; all if the table has no ingestion timestamps."""
        if not self._reader.table.stamped:
            return partitions
        with self._workspace.database.begin() as connection:
            stored = read_versions(connection, self.name, partitions)
            taken = read_watermarks(connection)
        gone = lost_artifacts(self._workspace, stored.values())
        now_us = time.time_ns() // 1000
        fresh = {
            p
            for p, mark in self._reader.watermarks.items()
            if taken.get(p) == mark.version
            and mark.last_ts <= now_us  # otherwise an unfinished bar may have ended since
            and p in stored
            and stored[p].code_version == self._code
            and gone.isdisjoint(stored[p].uris)
        }
        return [p for p in partitions if p not in fresh]

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        marks = self._reader.watermarks
        return {p: marks[p].n_rows for p in partitions if p in marks}

    def store(self, batch: ExternalBatch, *, rebuild: bool) -> Iterable[Outcome]:
        """Store the rows; a partition with unchanged content keeps its version and its file."""
        panel, database, tf = batch.panel, self._workspace.database, batch.panel.timeframe.name
        partitions = [Partition(asset, tf) for asset in panel.assets]
        of_table = [Partition(a, tf) for a in batch.absent if a in self._reader.ids]
        ids = {p.asset: self._reader.ids[p.asset] for p in (*partitions, *of_table)}
        infos = [AssetInfo(a, a, "crypto", id_, synthetic=False) for a, id_ in ids.items()]
        with database.begin() as connection:
            declare_timeframes(connection, [tf])
            register_assets(connection, infos, SOURCE)
        with database.writing() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, self.name, tf, list(ids.values()))
            with database.begin() as reading:
                stored = read_versions(reading, self.name, [*partitions, *of_table])
            versions = self._versions(panel, stored, rebuild=rebuild)
            # A table that has lost all rows of a partition is damaged: its snapshot is kept.
            empty = [p.asset for p in of_table if p not in stored or not stored[p].n_rows]
            nothing = _without_rows(tf, empty, SNAPSHOT_COLUMNS)
            versions |= self._versions(nothing, {}, rebuild=rebuild)
            write_versions(cursor, self.name, ids, versions)
            marks = {p: self._reader.watermarks[p] for p in partitions}
            write_watermarks(cursor, ids, marks)
            counts = [_count(issue) for issue in batch.issues]
            counts += [
                QualityCount(p, UNUSABLE_STAMP, self._reader.unusable[p])
                for p in partitions
                if p in self._reader.unusable
            ]
            replace_quality(cursor, self.name, ids, partitions, counts)
        return [
            *(self._outcome(batch, p, stored.get(p), versions[p], rebuild) for p in partitions),
            *(self._absent(Partition(a, tf), stored, a in empty) for a in batch.absent),
        ]

    def _versions(
        self, panel: Panel, stored: Mapping[Partition, DatasetVersion], *, rebuild: bool
    ) -> dict[Partition, DatasetVersion]:
        return stored_contents(
            self._workspace,
            self.name,
            panel,
            SNAPSHOT_COLUMNS,
            {partition.asset: version for partition, version in stored.items()},
            # Version of the bars alone, as for bars read from files: the trial ledger counts by it.
            input_versions=content_versions(panel, BAR_COLUMNS).whole,
            codes=dict.fromkeys(panel.assets, self._code),
            rebuild=rebuild,
        )

    def _absent(
        self, partition: Partition, stored: Mapping[Partition, DatasetVersion], is_empty: bool
    ) -> Outcome:
        there = self._reader.timeframes_of(partition.asset)
        detail = f"{self._reader.table.features.name} has no row of this asset and timeframe"
        if there:
            detail += f", but of tf {', '.join(there)}"
        if partition.timeframe.casefold() in map(str.casefold, there):
            detail += "; name a view in its place that writes tf as dim_timeframe does"
        if partition in stored and not is_empty:
            detail += f"; the {stored[partition].n_rows:,} rows copied earlier are kept"
        return Outcome(partition, Status.EMPTY if is_empty else Status.NO_INPUT, detail=detail)

    def _outcome(
        self,
        batch: ExternalBatch,
        partition: Partition,
        before: DatasetVersion | None,
        version: DatasetVersion,
        rebuild: bool,
    ) -> Outcome:
        if version.n_rows == 0:
            skipped = ", ".join(
                f"{issue.rows:,} rows skipped as {issue.reason.value}"
                for issue in batch.issues
                if issue.asset == partition.asset and issue.reason.skips
            )
            detail = f"no usable row in {self._reader.table.features.name}: {skipped}"
            return Outcome(partition, Status.NO_INPUT, detail=detail)
        if before is not None and before.version == version.version and not rebuild:
            return Outcome(partition, Status.UNCHANGED)
        return Outcome(partition, Status.STORED, version.n_rows)


def external_features_again(
    look: TableLook, workspace: Workspace, partitions: Sequence[Partition], _rebuild: bool
) -> tuple[Batches[ExternalBatch], ExternalFeaturesStage]:
    """The stage and its batches, made in any process."""
    reader = ExternalReader(workspace, look)
    return external_features(reader, partitions), ExternalFeaturesStage(workspace, reader)


def _count(issue: RowIssue) -> QualityCount:
    partition = Partition(issue.asset, issue.timeframe)
    return QualityCount(partition, issue.reason.value, issue.rows, issue.first_ts, issue.last_ts)
