"""Reads the stored columns of the user's own that belong to some features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from backtest_pipeline.market.errors import ArtifactCorrupt, PartitionError
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.column_sets import known_sets
from backtest_pipeline.pipeline.runs.own_columns import OwnColumns, StoredColumns
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.tables.datasets import read_versions


def codes_with_columns(
    workspace: Workspace,
    codes: str | dict[Partition, str],
    partitions: Sequence[Partition],
    names: Iterable[str],
) -> dict[Partition, str]:
    """The `code_version` of what is made from partitions and columns: `OwnColumns.code_of`.

    Args:
        workspace: the open store.
        codes: code version without the columns, one for all or by partition.
        partitions: the partitions.
        names: the columns that are read.
    """
    by_partition = dict.fromkeys(partitions, codes) if isinstance(codes, str) else codes
    own = {
        tf: _stored(workspace, tf, [p.asset for p in partitions if p.timeframe == tf], names)
        for tf in {partition.timeframe for partition in partitions}
    }
    return {p: own[p.timeframe].code_of(by_partition[p], p.asset) for p in partitions}


def with_own_columns(workspace: Workspace, batch: PanelBatch, names: Iterable[str]) -> PanelBatch:
    """A batch of features with those of the named columns that are a user's own.

    Raises:
        ColumnsError: for a column that no set has.
        PartitionError: where stored columns were made from other features than these, or have been
            stored without one of these columns.
    """
    panel, tf = batch.panel, batch.panel.timeframe.name
    own = _stored(workspace, tf, panel.assets, names)
    if not own.sets:
        return batch
    for asset, dataset in _out_of_date(workspace, batch, own).items():
        raise PartitionError(
            asset,
            tf,
            f"the stored {dataset} are of other features or columns than there are now; "
            "refresh signals",
        )
    return own_columns_from(workspace, batch, own.sets)


def own_columns_from(
    workspace: Workspace, batch: PanelBatch, sets: Mapping[str, StoredColumns]
) -> PanelBatch:
    """A batch of features with the columns of these stored sets, which are of its bars.

    Raises:
        ArtifactCorrupt: where they are not.
    """
    panel, tf = batch.panel, batch.panel.timeframe.name
    values: dict[str, np.ndarray] = {}
    for dataset, stored in sets.items():
        uris = {a: stored.versions[a].uris if a in batch.inputs else () for a in panel.assets}
        read = read_panel(workspace.artifacts, tf, uris, stored.names)
        if not np.array_equal(read.ts, panel.ts) or not np.array_equal(read.offsets, panel.offsets):
            raise ArtifactCorrupt(
                f"the stored {dataset} at {tf} are not of the bars that they were made from; "
                "refresh with --full-rebuild"
            )
        values |= read.columns
    on_bars = Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, values)
    return replace(batch, own=OwnColumns(on_bars, sets))


def where_columns_are_stored(
    workspace: Workspace, batch: PanelBatch, names: Iterable[str]
) -> PanelBatch:
    """The assets of a batch for which `with_own_columns` finds the columns; perhaps none."""
    own = _stored(workspace, batch.panel.timeframe.name, batch.panel.assets, names)
    lacking = _out_of_date(workspace, batch, own)
    inputs = {asset: of for asset, of in batch.inputs.items() if asset not in lacking}
    there = [asset for asset in batch.panel.assets if asset not in lacking]
    return replace(batch, panel=batch.panel.select(there), inputs=inputs)


def _out_of_date(workspace: Workspace, batch: PanelBatch, own: OwnColumns) -> dict[str, str]:
    """The assets without columns of these features, each with the dataset that it lacks."""

    @cache
    def names_in(uri: str) -> set[str]:
        return {*workspace.artifacts.columns_of(uri)}

    def is_of(stored: StoredColumns, asset: str, features: str) -> bool:
        version = stored.versions.get(asset)
        return (
            version is not None
            and version.input_version == features
            and all(names_in(uri).issuperset(stored.names) for uri in version.uris)
        )

    return {
        asset: dataset
        for dataset, stored in own.sets.items()
        for asset, features in batch.inputs.items()
        if not is_of(stored, asset, features.version)
    }


def _stored(
    workspace: Workspace, tf: str, assets: Sequence[str], names: Iterable[str]
) -> OwnColumns:
    """What is stored of the named columns, without their values."""
    wanted = set(names)
    if not wanted:
        return OwnColumns()
    partitions = [Partition(asset, tf) for asset in assets]
    sets = known_sets(workspace, sorted(wanted)).with_columns(wanted)
    with workspace.database.begin() as connection:
        versions = {one.dataset: read_versions(connection, one.dataset, partitions) for one in sets}
    return OwnColumns(
        None,
        {
            one.dataset: StoredColumns(
                tuple(name for name in one.names if name in wanted),
                {p.asset: version for p, version in versions[one.dataset].items()},
            )
            for one in sets
        },
    )
