"""Stage `bars`: from a source to content-addressed snapshots, a version per asset and timeframe."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from backtest_pipeline.market.panel import BAR_COLUMNS, Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.pipeline.stage import Batches, Outcome, Status
from backtest_pipeline.pipeline.stages.panels import extended_chains, lost_artifacts
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.versions import BARS_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import require_known
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import combined, content_versions
from backtest_pipeline.storage.source_states import read_since, write_states
from backtest_pipeline.storage.tables.asset_identity import replace_remarks
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    QualityCount,
    read_versions,
    replace_quality,
    stored_versions,
    write_versions,
)
from backtest_pipeline.storage.tables.dimensions import known_ids, register_assets
from backtest_pipeline.storage.tables.timeframes import declare_timeframes

logger = logging.getLogger(__name__)

_NEVER = np.iinfo(np.int64).min


def bar_batches(reader: SourceReader, partitions: Sequence[Partition]) -> Batches[Panel]:
    """Lazy batches of these partitions' bars, resampled from the source."""
    return Batches(tuple(partitions), reader.resampled)


class BarsStage:
    """Stores bars as snapshots; a partition with unchanged content keeps its version."""

    name = "bars"
    tables = (
        "dim_assets",
        "dataset_versions",
        "dataset_snapshots",
        "data_quality",
        "source_states",
    )

    remade = None  # the source was read, or is being read, by this process

    def __init__(self, workspace: Workspace, reader: SourceReader) -> None:
        self._workspace = workspace
        self._reader = reader

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        """All partitions, as only reading a source shows whether it has changed.

        Except those that are stored of assets that have left the source: they stay as they are,
        and what is made from them is computed from the stored bars.

        Raises:
            UnknownName: where the source has none of the assets, and none is stored.
        """
        gone = self._reader.absent
        left = [p for p in partitions if p.asset in gone]
        with self._workspace.database.begin() as connection:
            kept = read_versions(connection, self.name, left)
        if not kept and len(left) == len(partitions):
            require_known(gone, self._reader.symbols)
        return [p for p in partitions if p not in kept]

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        days: dict[str, float] = {}
        for panel in self._reader.bars.panels.values():
            for asset in panel.assets:
                ts = panel.ts[panel.rows_of(asset)]
                if len(ts):
                    days[asset] = max(days.get(asset, 0.0), (ts[-1] - ts[0]) / DAY_US)
        return {p: int(days.get(p.asset, 0) / timeframe(p.timeframe).days) for p in partitions}

    def store(self, batch: Panel, *, rebuild: bool) -> Iterable[Outcome]:
        """Append newer bars where the stored ones are unchanged; otherwise replace all bars.

        Bars that another refresh has read later, and stored meanwhile, are kept.
        """
        tf = batch.timeframe.name
        partitions = [Partition(asset, tf) for asset in batch.assets]
        database = self._workspace.database
        with database.begin() as connection:
            infos = [a for a in self._reader.bars.assets if a.symbol in set(batch.assets)]
            # A source without any bar of a known asset does not update what is known about it.
            declare_timeframes(connection, [tf])
            ids = known_ids(connection, batch.assets)
            to_register = [a for a in infos if _rows(batch, a.symbol) or a.symbol not in ids]
            ids |= register_assets(connection, to_register, self._reader.source.name)
            replace_remarks(connection, ids, self._reader.bars.remarks)
        with database.writing() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, self.name, tf, list(ids.values()))
            stored = stored_versions(cursor, self.name, tf, ids)
            reader = self._reader
            later = read_since(cursor, tf, ids, reader.states, reader.read_at_us) & stored.keys()
            # A source that has lost all bars of a partition is damaged: stored bars are kept.
            lost = {
                p: stored[p.asset].n_rows
                for p in partitions
                if not _rows(batch, p.asset) and p.asset in stored and stored[p.asset].n_rows
            }
            sound = [p for p in partitions if p not in lost and p.asset not in later]
            versions = self._versions(batch, sound, stored, rebuild)
            write_versions(cursor, self.name, ids, versions)
            lacking = {partition.asset for partition in lost}
            states = {a: s for a, s in reader.states.items() if a not in lacking}
            compared = {asset: id_ for asset, id_ in ids.items() if asset not in later}
            write_states(cursor, tf, compared, states, reader.read_at_us)
            replace_quality(
                cursor,
                self.name,
                ids,
                sound,
                [count for count in self._quality(batch) if count.partition not in lost],
            )
        if later:
            logger.info("%s: bars of %s were read later by another refresh", tf, sorted(later))
        return [
            Outcome(p, Status.UNCHANGED)
            if p.asset in later
            else self._outcome(batch, p, p in versions, lost.get(p, 0))
            for p in partitions
        ]

    def _versions(
        self,
        batch: Panel,
        partitions: Sequence[Partition],
        stored: Mapping[str, DatasetVersion],
        rebuild: bool,
    ) -> dict[Partition, DatasetVersion]:
        """Store the rows of the changed partitions; returns their new versions."""
        until = {a: v.last_ts for a, v in stored.items() if v.last_ts is not None}
        contents = content_versions(batch, BAR_COLUMNS, until)
        grown = {a for a, v in contents.beginning.items() if v == stored[a].version}
        gone = lost_artifacts(self._workspace, stored.values())
        readable = {a for a, v in stored.items() if gone.isdisjoint(v.uris)}
        changed = [
            p.asset
            for p in partitions
            if rebuild
            or p.asset not in readable
            or stored[p.asset].version != contents.whole[p.asset]
        ]
        appended = set() if rebuild else grown & readable
        last = np.array([until[a] if a in appended else _NEVER for a in changed], np.int64)
        present = batch.select(changed)
        chains = extended_chains(
            self._workspace,
            self.name,
            present.take(present.ts > np.repeat(last, present.lengths)),
            BAR_COLUMNS,
            {a: stored[a].uris if a in appended else () for a in changed},
        )
        return {
            Partition(asset, batch.timeframe.name): self._version(
                batch.ts[batch.rows_of(asset)],
                contents.whole[asset],
                stored.get(asset),
                asset in grown,
                chains[asset],
            )
            for asset in changed
        }

    def _version(
        self,
        ts: np.ndarray,
        content: str,
        before: DatasetVersion | None,
        grown: bool,
        uris: tuple[str, ...],
    ) -> DatasetVersion:
        generation = content
        if before is not None:
            # Never an earlier generation, even if the content returns: results made from the rows
            # in between are not current.
            generation = before.generation if grown else combined(before.generation, content)
        return DatasetVersion(
            version=content,
            input_version=self._reader.source.name,
            code_version=BARS_CODE,
            generation=generation,
            n_rows=len(ts),
            first_ts=int(ts[0]) if len(ts) else None,
            last_ts=int(ts[-1]) if len(ts) else None,
            uris=uris,
        )

    def _quality(self, batch: Panel) -> list[QualityCount]:
        """Issues of the source rows that each partition is made from, counted by reason."""
        target = batch.timeframe
        bases = {asset: self._reader.base_of(asset, target) for asset in batch.assets}
        issues = [
            QualityCount(
                Partition(i.asset, target.name), i.reason.value, i.rows, i.first_ts, i.last_ts
            )
            for i in self._reader.bars.issues
            if bases.get(i.asset) == i.timeframe
        ]
        without = [
            QualityCount(Partition(asset, target.name), "no_complete_bar", 1)
            for asset in batch.assets
            if not _rows(batch, asset)
        ]
        return issues + without

    def _outcome(
        self, panel: Panel, partition: Partition, changed: bool, kept_rows: int
    ) -> Outcome:
        n = _rows(panel, partition.asset)
        if n == 0:
            detail = self._why_empty(partition)
            if kept_rows:
                detail += f"; the {kept_rows:,} stored bars are kept"
            usable = not kept_rows and self._reader.has_bars(partition.asset)
            return Outcome(partition, Status.EMPTY if usable else Status.NO_INPUT, detail=detail)
        return Outcome(partition, Status.STORED if changed else Status.UNCHANGED, n * changed)

    def _why_empty(self, partition: Partition) -> str:
        bars = self._reader.bars
        skipped = [
            f"{i.rows:,} {i.timeframe} rows skipped as {i.reason.value}"
            for i in bars.issues
            if i.asset == partition.asset and i.reason.skips
        ]
        bases = [base.name for base in self._reader.bases_of(partition.asset)]
        reason = ", ".join(skipped) or (
            f"supply bars that {partition.timeframe} bars can be resampled from"
        )
        return (
            f"no complete {partition.timeframe} bar in the {', '.join(bases)} bars of "
            f"{self._reader.source.name}: {reason}"
        )


def _rows(panel: Panel, asset: str) -> int:
    rows = panel.rows_of(asset)
    return rows.stop - rows.start
