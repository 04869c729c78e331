"""Signals: from stored features to the conditions of all presets, and where they begin to hold.

The table `signals` has the first bar of each stretch on which a condition holds, with its feature
row. Backtests read the conditions themselves, which lie as masks in Parquet files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np

from backtest_pipeline.market.features import EMA_PERIODS
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.presets import presets_to_compute
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.runs.own_columns import OwnColumns, apart
from backtest_pipeline.pipeline.stage import Batches, Outcome, Remade, Status, stored
from backtest_pipeline.pipeline.stages.columns.stored_columns import (
    codes_with_columns,
    with_own_columns,
)
from backtest_pipeline.pipeline.stages.conditions import (
    SignalBatch,
    mask_columns,
    renewed_conditions,
)
from backtest_pipeline.pipeline.stages.features import stored_features
from backtest_pipeline.pipeline.stages.panels import (
    PanelBatch,
    extended_chains,
    lost_artifacts,
    rows_of_dataset,
    stale_partitions,
)
from backtest_pipeline.pipeline.stages.signal_states import signal_states
from backtest_pipeline.pipeline.versions import signal_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.orders import (
    LONG_ENTRY,
    LONG_EXIT,
    SHORT_ENTRY,
    SHORT_EXIT,
)
from backtest_pipeline.storage.external.rows import feature_rows
from backtest_pipeline.storage.provenance import combined
from backtest_pipeline.storage.tables.datasets import DatasetVersion, read_versions
from backtest_pipeline.storage.tables.dimensions import SignalRow, asset_ids
from backtest_pipeline.storage.tables.signal_writing import RowsOf, built_rows, write_signals
from backtest_pipeline.storage.tables.signals import (
    Maker,
    SignalEvents,
    failed_presets,
    read_makers,
)


def signals_code(signals: Sequence[SignalRow]) -> str:
    """Version of what gives the events: the signals with their parameters, each with its code.

    Raises:
        UnknownName: for a signal of a strategy that there is not.
    """
    return hash_of([[asdict(signal), signal_code(signal.strategy)] for signal in signals])


def feature_rows_of(workspace: Workspace) -> RowsOf:
    """Where the full feature rows of events lie."""
    table = workspace.external
    return built_rows if table is None else partial(feature_rows, table)


class SignalsStage:
    """Stores conditions, and the first bars of them with the full feature row of each."""

    name = "signals"
    tables = ("signals", "signal_state", "dataset_versions")

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.signals = presets_to_compute(workspace)
        self.code = signals_code(self.signals)
        self._columns = {signal.signal_id: columns_read([signal]) for signal in self.signals}
        self._makers = {
            signal.signal_id: Maker(hash_of(signal.params), signal_code(signal.strategy))
            for signal in self.signals
        }

    @property
    def remade(self) -> Remade:
        return signals_again

    def computed(
        self, features: Batches[PanelBatch], *, rebuild: bool = False
    ) -> Batches[SignalBatch]:
        """Conditions of all presets, where they can be computed.

        Those that are stored and current are read, except with `rebuild`: where one strategy was
        edited, it alone is computed. The columns of the user's own that presets read are loaded.
        """
        names = columns_read(self.signals)

        def conditions(batch: PanelBatch) -> SignalBatch:
            known = with_own_columns(self._workspace, batch, names)
            stored, until = self._stored_until(known, rebuild=rebuild)
            gone = lost_artifacts(self._workspace, stored.values())
            readable = [
                asset in stored and bool(stored[asset].uris) and gone.isdisjoint(stored[asset].uris)
                for asset in batch.panel.assets
            ]
            current = (until == _FOREVER) & readable
            return renewed_conditions(self._workspace, known, self.signals, stored, current)

        return features.map(conditions)

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        with self._workspace.database.begin() as connection:
            failed = {one.partition for one in failed_presets(connection)}
        names = columns_read(self.signals)
        codes = codes_with_columns(self._workspace, self.code, partitions, names)
        stale = stale_partitions(self._workspace, self.name, "features", codes, partitions)
        return [*stale, *(failed & set(partitions)).difference(stale)]

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return rows_of_dataset(self._workspace, "features", partitions)

    def store(self, batch: SignalBatch, *, rebuild: bool) -> Iterable[Outcome]:
        """Only events of new bars are written where the features only grew.

        Nothing is written of a signal whose events are those of the stored features already: where
        one strategy was edited, or a signal registered, the events of the others stay.
        """
        panel, tf = batch.panel, batch.panel.timeframe
        with self._workspace.database.begin() as connection:
            ids = asset_ids(connection, list(batch.inputs))
        versions = self._versions(batch)
        before, until = self._stored_until(batch, rebuild=rebuild)
        for asset, own in batch.failures.items():
            until[list(own), panel.assets.index(asset)] = _NEVER
        pairs = {
            (signal.signal_id, ids[asset]): int(until[s, a])
            for s, signal in enumerate(batch.signals)
            for a, asset in enumerate(panel.assets)
            if asset in ids and until[s, a] > _NEVER
        }
        kept = {pair for pair, last in pairs.items() if last == _FOREVER}
        write_signals(
            self._workspace.database,
            tf,
            _events(batch, ids, until),
            [
                state
                for state in signal_states(batch, ids)
                if (state.signal_id, state.asset_id) not in kept
            ],
            makers=self._makers,
            ids=ids,
            versions=versions,
            since={pair: last + 1 for pair, last in pairs.items() if pair not in kept},
            kept=kept,
            rows_of=feature_rows_of(self._workspace),
            keep_masks=lambda new: self._with_masks(batch, before, new, rebuild),
        )
        return [
            _outcome(p, versions.get(p), batch)
            for p in (Partition(asset, tf.name) for asset in panel.assets)
        ]

    def _stored_until(
        self, batch: PanelBatch | SignalBatch, *, rebuild: bool
    ) -> tuple[dict[str, DatasetVersion], np.ndarray]:
        """The stored versions by asset, and until when stored events are those of today.

        The second is int64 `(n_signals, n_assets)`: the stamp, or _NEVER, or _FOREVER.
        """
        panel, tf = batch.panel, batch.panel.timeframe
        until = np.full((len(self.signals), len(panel.assets)), _NEVER)
        with self._workspace.database.begin() as connection:
            partitions = [Partition(asset, tf.name) for asset in panel.assets]
            stored = read_versions(connection, self.name, partitions)
            ids = asset_ids(connection, list(batch.inputs))
        with self._workspace.database.arrow() as connection, connection.cursor() as cursor:
            made_by = read_makers(cursor, tf, list(ids.values()))
        for a, partition in enumerate(partitions):
            before, features = stored.get(partition), batch.inputs.get(partition.asset)
            if before and features and not rebuild:
                now = self._version(batch.own, partition.asset, features)
                own = {s: made_by.get((s, ids[partition.asset])) for s in self._makers}
                until[:, a] = self._written_until(before, now, own)
        return {partition.asset: version for partition, version in stored.items()}, until

    def _with_masks(
        self,
        batch: SignalBatch,
        stored: Mapping[str, DatasetVersion],
        versions: Mapping[Partition, DatasetVersion],
        rebuild: bool,
    ) -> Mapping[Partition, DatasetVersion]:
        """Store the conditions of new bars where bars and presets only grew, else of all."""
        panel, tf = batch.panel, batch.panel.timeframe.name
        gone = lost_artifacts(self._workspace, stored.values())
        until = np.full(len(panel.assets), _NEVER)
        chains: dict[str, tuple[str, ...]] = dict.fromkeys(panel.assets, ())
        for a, asset in enumerate(panel.assets):
            before, now = stored.get(asset), versions.get(Partition(asset, tf))
            if before is None or now is None or before.last_ts is None or rebuild:
                continue
            made_alike = apart(before.code_version)[0] == apart(now.code_version)[0]
            if made_alike and before.generation == now.generation and gone.isdisjoint(before.uris):
                until[a], chains[asset] = before.last_ts, before.uris
        names = mask_columns(batch.signals)
        masks = Panel(
            panel.timeframe,
            panel.assets,
            panel.offsets,
            panel.ts,
            dict(zip(names, batch.conditions, strict=True)),
        )
        fresh = masks.take(panel.ts > until[panel.segment_of_row])
        uris = extended_chains(self._workspace, "signals", fresh, names, chains)
        return {p: replace(version, uris=uris[p.asset]) for p, version in versions.items()}

    def _written_until(
        self, before: DatasetVersion, now: DatasetVersion, made_by: Mapping[int, Maker | None]
    ) -> list[int]:
        """For each signal the stamp until which its stored events are those of today.

        Columns of the user's own concern the signals that read some, and no others.
        """
        until = []
        generations = apart(before.generation), apart(now.generation)
        codes = apart(before.code_version), apart(now.code_version)
        for signal_id, maker in self._makers.items():
            same = before.input_version == now.input_version
            grew = generations[0][0] == generations[1][0]
            if self._columns[signal_id]:
                same = same and codes[0][1] == codes[1][1]
                grew = generations[0] == generations[1]
            last = _FOREVER if same else before.last_ts
            is_known = grew and last is not None and made_by[signal_id] == maker
            until.append(last if is_known else _NEVER)
        return until

    def _versions(self, batch: SignalBatch) -> dict[Partition, DatasetVersion]:
        panel = batch.panel
        by_row = np.bitwise_count(batch.first_bars).sum(axis=0)
        n_events = np.bincount(panel.segment_of_row, by_row, minlength=len(panel.assets))
        return {
            Partition(asset, panel.timeframe.name): self._version(
                batch.own, asset, features, batch.failed_on(asset), int(n)
            )
            for asset, n in zip(panel.assets, n_events, strict=True)
            if (features := batch.inputs.get(asset))
        }

    def _version(
        self,
        own: OwnColumns,
        asset: str,
        features: DatasetVersion,
        failed: Iterable[str] = (),
        n_rows: int = 0,
    ) -> DatasetVersion:
        code = own.code_of(self.code, asset)
        return DatasetVersion(
            version=combined(features.version, code, *failed),
            input_version=features.version,
            code_version=code,
            generation=own.generation_of(features.generation, asset),
            n_rows=n_rows,
            first_ts=features.first_ts,
            last_ts=features.last_ts,
        )


def signals_again(
    workspace: Workspace, partitions: Sequence[Partition], rebuild: bool
) -> tuple[Batches[SignalBatch], SignalsStage]:
    """The stage and its batches, made in any process."""
    stage = SignalsStage(workspace)
    return stage.computed(stored_features(workspace, partitions), rebuild=rebuild), stage


_NEVER, _FOREVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_BITS = (
    (LONG_ENTRY, True, True),
    (LONG_EXIT, True, False),
    (SHORT_ENTRY, False, True),
    (SHORT_EXIT, False, False),
)


def _events(batch: SignalBatch, ids: Mapping[str, int], written_until: np.ndarray) -> SignalEvents:
    """The signals after `written_until`, int64 `(n_signals, n_assets)`; one row for each bit."""
    panel, events = batch.panel, batch.first_bars
    fresh = panel.ts > written_until[:, panel.segment_of_row]
    signal, row, is_long, is_entry = [], [], [], []
    for bit, long, entry in _BITS:
        s, r = np.nonzero((events & np.uint8(bit)).astype(bool) & fresh)
        signal.append(s)
        row.append(r)
        is_long.append(np.full(len(s), long))
        is_entry.append(np.full(len(s), entry))
    rows = np.concatenate(row)
    signal_ids = np.array([s.signal_id for s in batch.signals], np.int32)
    asset_of = np.array([ids.get(asset, 0) for asset in panel.assets], np.int32)
    return SignalEvents(
        signal_id=signal_ids[np.concatenate(signal)],
        asset_id=asset_of[panel.segment_of_row[rows]],
        ts=panel.ts[rows],
        is_long=np.concatenate(is_long),
        is_entry=np.concatenate(is_entry),
        close=panel["close"][rows],
        emas={period: panel[f"ema_{period}"][rows] for period in EMA_PERIODS},
    )


def _outcome(partition: Partition, version: DatasetVersion | None, batch: SignalBatch) -> Outcome:
    if version is None:
        return Outcome(
            partition, Status.NO_INPUT, detail="no features are stored; refresh cmc_features first"
        )
    if version.last_ts is None:
        return Outcome(partition, Status.EMPTY, detail=f"no complete {partition.timeframe} bar")
    return stored(partition, version.n_rows, batch.failed_on(partition.asset))
