"""Reads the recorded rows of a run from the artifacts alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import ArtifactCorrupt, InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.runs.own_columns import (
    OwnColumns,
    StoredColumns,
)
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.tables.datasets import COLUMNS, dataset_of_key, input_key


def recorded_rows(
    artifacts: ArtifactStore,
    tf: str,
    asset: str,
    snapshots: Mapping[str, Mapping[str, Any]],
    columns: Sequence[str],
    dataset: str = "features",
) -> Panel:
    """Read the recorded rows of one asset.

    Args:
        artifacts: the artifact store.
        tf, asset: the partition.
        snapshots: `version`, `uris` and `n_rows` by `input_key`.
        columns: columns of `features.SNAPSHOT_COLUMNS`, or of the dataset.
        dataset: what is read.

    Raises:
        InvalidInput: where it is not among the snapshots.
        ArtifactCorrupt: where a file is missing, damaged, or holds a different number of rows.
    """
    key = input_key(Partition(asset, tf), dataset)
    snapshot = snapshots.get(key)
    if snapshot is None:
        raise InvalidInput(f"the rows of {key} are not among the snapshots of the run")
    names = ["ts", *columns]
    tables = [artifacts.read_snapshot(uri, names, [asset]) for uri in snapshot["uris"]]
    table = pa.concat_tables(tables)
    if table.num_rows != snapshot["n_rows"]:
        raise ArtifactCorrupt(
            f"{', '.join(snapshot['uris'])}: {table.num_rows} rows of {key} found, but "
            f"{snapshot['n_rows']} were stored"
        )
    return Panel(
        timeframe(tf),
        (asset,),
        np.array([0, table.num_rows]),
        table["ts"].cast(pa.int64()).to_numpy(),
        {name: table[name].to_numpy() for name in columns},
    )


def symbols_read(snapshots: Iterable[str]) -> list[str]:
    """The symbols whose features are among the snapshots of a run, sorted."""
    read = [dataset_of_key(key) for key in snapshots]
    return sorted({partition.asset for partition, dataset in read if dataset == "features"})


def rows_together(
    artifacts: ArtifactStore, run: Mapping[str, Any], columns: Sequence[str]
) -> Panel:
    """The recorded rows of all assets that a run read, in the order of their names."""
    tf, snapshots = run["timeframe"], run["snapshots"]
    symbols = symbols_read(snapshots)
    parts = [recorded_rows(artifacts, tf, one, snapshots, columns) for one in symbols]
    return Panel.join(timeframe(tf), symbols, parts, columns)


def with_own_columns(
    artifacts: ArtifactStore,
    run: Mapping[str, Any],
    panel: Panel,
    names: Sequence[str],
    contents: dict[str, str],
) -> Panel:
    """The panel with the named columns that are recorded; writes their hashes into `contents`."""
    (asset,), tf = panel.assets, panel.timeframe.name
    values: dict[str, np.ndarray] = {}
    sets: dict[str, StoredColumns] = {}
    for key, snapshot in run["snapshots"].items():
        partition, dataset = dataset_of_key(key)
        if partition != (asset, tf) or not dataset.startswith(COLUMNS):
            continue
        there = artifacts.columns_of(snapshot["uris"][0])
        read = tuple(name for name in names if name in there)
        rows = recorded_rows(artifacts, tf, asset, run["snapshots"], read, dataset)
        values |= rows.columns
        sets[dataset] = StoredColumns(read)
    own = OwnColumns(Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, values), sets)
    contents |= own.contents(names).get(asset, {})
    return own.on(panel)
