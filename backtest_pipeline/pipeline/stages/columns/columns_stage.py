"""Stage `columns`: a set of the user's own columns on the bars of the stored features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.column_sets import ColumnSet, known_sets
from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.stage import Batches, Outcome, StageReport, Status, require_stored
from backtest_pipeline.pipeline.stages.columns.stored_columns import with_own_columns
from backtest_pipeline.pipeline.stages.features import load_batch
from backtest_pipeline.pipeline.stages.panels import (
    PanelBatch,
    rows_of_dataset,
    stale_partitions,
    stored_contents,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.postgres.statistics import analyze_keys
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    stored_versions,
    write_versions,
)
from backtest_pipeline.storage.tables.dimensions import asset_ids


class ColumnsStage:
    """Stores one set as snapshots; its rows are those of the features that it lies beside."""

    name = "columns"
    tables = ("dataset_versions", "dataset_snapshots")
    remade = None  # the files of the columns lie where this process is

    def __init__(self, workspace: Workspace, columns: ColumnSet) -> None:
        self._workspace = workspace
        self._set = columns

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        codes = self._set.codes(partitions)
        known = list(codes)
        stale = {*stale_partitions(self._workspace, self._set.dataset, "features", codes, known)}
        return [p for p in partitions if p not in codes or p in stale]

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return rows_of_dataset(self._workspace, "features", partitions)

    def store(self, batch: PanelBatch, *, rebuild: bool) -> Iterable[Outcome]:
        """Store the set of a batch; a partition with unchanged content keeps its version."""
        known = [asset for asset in batch.panel.assets if asset in batch.inputs]
        bars = batch.panel.select(known)
        tf = bars.timeframe.name
        partitions = [Partition(asset, tf) for asset in known]
        known_codes = self._set.codes(partitions)
        codes = {p.asset: known_codes.get(p, "") for p in partitions}
        values = self._set.values(bars)
        panel = Panel(bars.timeframe, bars.assets, bars.offsets, bars.ts, values)
        dataset, database = self._set.dataset, self._workspace.database
        with database.begin() as connection:
            ids = asset_ids(connection, known)
        with database.writing() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, dataset, tf, list(ids.values()))
            versions = stored_contents(
                self._workspace,
                self.name,
                panel,
                self._set.names,
                stored_versions(cursor, dataset, tf, ids),
                input_versions={asset: batch.inputs[asset].version for asset in known},
                codes=codes,
                rebuild=rebuild,
            )
            write_versions(cursor, dataset, ids, versions, made_from="features")
        return [_outcome(p, versions.get(p)) for p in batch.partitions]


def _outcome(partition: Partition, version: DatasetVersion | None) -> Outcome:
    if version is None:
        detail = "no features are stored; refresh cmc_features first"
        return Outcome(partition, Status.EMPTY, detail=detail)
    return Outcome(partition, Status.STORED, version.n_rows)


def refresh_columns(
    workspace: Workspace,
    partitions: Sequence[Partition],
    names: Iterable[str],
    *,
    rebuild: bool = False,
) -> Iterator[StageReport]:
    """Bring the sets with the named columns up to date with features and source.

    Raises:
        ColumnsError: for a column that no set has, or a file that cannot be read.
    """
    wanted = list(names)
    for one in known_sets(workspace, wanted).with_columns(wanted):
        bars = Batches(
            tuple(partitions),
            lambda tf, assets: load_batch(workspace, "features", tf, assets, ()),
        )
        yield run_stage(
            bars,
            ColumnsStage(workspace, one),
            pool=workspace.pool,
            rebuild=rebuild,
            progress=workspace.progress,
            retrying=workspace.database.retrying,
            analyze=partial(analyze_keys, workspace.database),
        )


def with_fresh_columns(
    workspace: Workspace, batch: PanelBatch, names: Sequence[str], *, rebuild: bool = False
) -> PanelBatch:
    """A batch of stored features with these columns of the user's own, brought up to date.

    Raises:
        ColumnsError: for a column that there is not, or that cannot be read.
    """
    for report in refresh_columns(workspace, batch.partitions, names, rebuild=rebuild):
        require_stored(report)
    return with_own_columns(workspace, batch, names)
