"""Batches passed between stages, and panels written to snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.runs.own_columns import OwnColumns
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.panel_files import read_chains
from backtest_pipeline.storage.provenance import combined, content_versions
from backtest_pipeline.storage.tables.datasets import DatasetVersion, read_versions


@dataclass(frozen=True)
class PanelBatch:
    """A panel, and what it was made from.

    Attributes:
        panel: the rows.
        inputs: the stored version that each asset's rows were made from.
        own: the columns of the user's own that strategies read on these rows.
    """

    panel: Panel
    inputs: Mapping[str, DatasetVersion]
    own: OwnColumns = field(default_factory=OwnColumns)

    @property
    def partitions(self) -> list[Partition]:
        return [Partition(asset, self.panel.timeframe.name) for asset in self.panel.assets]

    def computed(self, compute: Callable[[Panel], Panel]) -> PanelBatch:
        """A batch with `compute` applied to the panel; the assets stay the same."""
        return PanelBatch(compute(self.panel), self.inputs, self.own)


def stale_partitions(
    workspace: Workspace,
    dataset: str,
    input_dataset: str,
    code: str | Mapping[Partition, str],
    partitions: Sequence[Partition],
) -> list[Partition]:
    """The partitions whose stored dataset is missing, or was not made from its input by `code`.

    `code` is one for all, or by partition.
    """
    codes = dict.fromkeys(partitions, code) if isinstance(code, str) else code
    with workspace.database.begin() as connection:
        inputs = read_versions(connection, input_dataset, partitions)
        stored = read_versions(connection, dataset, partitions)
    gone = lost_artifacts(workspace, stored.values())
    return [
        p
        for p in partitions
        if p not in inputs
        or p not in stored
        or not stored[p].is_made_from(inputs[p].version, codes[p])
        or not gone.isdisjoint(stored[p].uris)
    ]


def lost_artifacts(workspace: Workspace, versions: Iterable[DatasetVersion]) -> set[str]:
    """The artifacts that these versions name but that are missing; they have to be rebuilt."""
    return workspace.artifacts.gone({uri for version in versions for uri in version.uris})


def rows_of_dataset(
    workspace: Workspace, dataset: str, partitions: Sequence[Partition]
) -> dict[Partition, int]:
    """Number of stored rows by partition."""
    with workspace.database.begin() as connection:
        stored = read_versions(connection, dataset, partitions)
    return {partition: version.n_rows for partition, version in stored.items()}


def stored_contents(
    workspace: Workspace,
    folder: str,
    panel: Panel,
    columns: Sequence[str],
    stored: Mapping[str, DatasetVersion],
    *,
    input_versions: Mapping[str, str],
    codes: Mapping[str, str],
    rebuild: bool,
) -> dict[Partition, DatasetVersion]:
    """Versions of whole panels by their content; changed rows are written as one new snapshot.

    An asset with unchanged content keeps its version and its files. While rows are only appended
    it keeps its generation; a replaced history never returns to an earlier one.

    Args:
        workspace: the open store.
        folder: snapshots are stored below `<folder>/<timeframe>`.
        panel: all rows of each asset.
        columns: the columns to store.
        stored: what is stored, by asset, as the following.
        input_versions, codes: of the new versions.
        rebuild: write also what is unchanged.
    """
    tf = panel.timeframe.name
    until = {asset: v.last_ts for asset, v in stored.items() if v.last_ts is not None}
    contents, beginnings, _ = content_versions(panel, columns, until)
    gone = lost_artifacts(workspace, stored.values())
    kept = {
        asset: version
        for asset, version in stored.items()
        if not rebuild and version.version == contents.get(asset) and gone.isdisjoint(version.uris)
    }
    lengths = dict(zip(panel.assets, panel.lengths.tolist(), strict=True))
    written = [asset for asset, n in lengths.items() if n and asset not in kept]
    uris: tuple[str, ...] = ()
    if written:
        rows = panel_table(panel.select(written), columns)
        uris = (workspace.artifacts.put_snapshot(f"{folder}/{tf}", rows),)
    versions = {}
    for asset, n in lengths.items():
        before = stored.get(asset)
        grew = before is not None and beginnings.get(asset) == before.version
        generation = contents[asset]
        if before is not None:
            generation = before.generation if grew else combined(before.generation, generation)
        ts = panel.ts[panel.rows_of(asset)]
        versions[Partition(asset, tf)] = DatasetVersion(
            version=contents[asset],
            input_version=input_versions[asset],
            code_version=codes[asset],
            generation=generation,
            n_rows=n,
            first_ts=int(ts[0]) if n else None,
            last_ts=int(ts[-1]) if n else None,
            uris=kept[asset].uris if asset in kept else uris if n else (),
        )
    return versions


def panel_table(panel: Panel, columns: Sequence[str]) -> pa.Table:
    """A panel as an Arrow table with `asset`, `ts` (UTC) and the given columns."""
    names = pa.DictionaryArray.from_arrays(
        pa.array(panel.segment_of_row, pa.int32()), pa.array(panel.assets, pa.string())
    )
    stamps = pa.array(panel.ts, pa.timestamp("us", "UTC"))
    values = [pa.array(panel[name]) for name in columns]
    return pa.table([names, stamps, *values], names=["asset", "ts", *columns])


def extended_chains(
    workspace: Workspace,
    folder: str,
    rows: Panel,
    columns: Sequence[str],
    chains: Mapping[str, tuple[str, ...]],
) -> dict[str, tuple[str, ...]]:
    """Store rows as a new snapshot; returns the snapshots that hold each asset's rows.

    Snapshots at the end of a chain that hold no more rows than come after them are merged into the
    new one, like the carries of a binary counter. So the length of a chain, and how often a row is
    rewritten, grow with the logarithm of the number of appends.

    Args:
        workspace: the open store.
        folder: snapshots are stored below `<folder>/<timeframe>`.
        rows: the rows to store; an asset may have none.
        columns: the columns to store.
        chains: the snapshots that hold each asset's earlier rows, oldest rows first.
    """
    artifacts = workspace.artifacts
    grown = [a for a, n in zip(rows.assets, rows.lengths, strict=True) if n]
    if not grown:
        return dict(chains)
    kept: dict[tuple[str, ...], tuple[str, ...]] = {}
    for chain in {chains[asset] for asset in grown}:
        n_rows, length = len(rows), len(chain)
        while length and (older := artifacts.rows_in(chain[length - 1])) <= n_rows:
            n_rows, length = n_rows + older, length - 1
        kept[chain] = chain[:length]
    merged = {a: chains[a][len(kept[chains[a]]) :] for a in grown}
    parts = [*read_chains(artifacts, rows.timeframe.name, merged, columns), rows]
    together = Panel.join(rows.timeframe, grown, parts, columns)
    uri = artifacts.put_snapshot(f"{folder}/{rows.timeframe.name}", panel_table(together, columns))
    return {**chains, **{asset: (*kept[chains[asset]], uri) for asset in grown}}
