"""Compares what incremental refreshes have stored with a full recomputation from stored bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import BacktestError, PartitionError
from backtest_pipeline.market.features import FEATURES, build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.row_keys import row_keys
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.columns.column_sets import columns_read
from backtest_pipeline.pipeline.presets import presets_to_compute
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.columns.stored_columns import (
    codes_with_columns,
    with_own_columns,
)
from backtest_pipeline.pipeline.stages.conditions import conditions_batch, mask_columns
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, load_batch
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.stages.signal_states import signal_states
from backtest_pipeline.pipeline.stages.signals import signals_code
from backtest_pipeline.pipeline.versions import FEATURES_CODE
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.orders import (
    LONG_ENTRY,
    LONG_EXIT,
    SHORT_ENTRY,
    SHORT_EXIT,
)
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.provenance import combined, content_versions
from backtest_pipeline.storage.tables.datasets import DatasetVersion, all_partitions, read_versions
from backtest_pipeline.storage.tables.dimensions import SignalRow, asset_ids
from backtest_pipeline.storage.tables.features import read_features
from backtest_pipeline.storage.tables.signals import read_events, read_states

PARTITIONS_LOOKED_AT = 8


@dataclass(frozen=True)
class Recomputed:
    """The comparison of a sample of stored partitions with a full recomputation.

    Attributes:
        partitions: the sample, all up to date with the stored inputs and today's code.
        rows: number of rows compared.
        differing: the partitions that differ, each with what differs.
    """

    partitions: tuple[Partition, ...]
    rows: int
    differing: tuple[str, ...]


@retried
def recomputed_features(workspace: Workspace, n: int = PARTITIONS_LOOKED_AT) -> Recomputed:
    """Compare rows, snapshots and versions of features with a full recomputation.

    The seed of the sample is a hash of what is stored: repeating the check draws the same sample,
    and each refresh that changes something draws a new one.

    Args:
        workspace: the open store.
        n: maximum number of partitions in the sample.
    """
    chosen, stored = _sample(workspace, "features", "bars", FEATURES_CODE, n, ())

    def compare(panel: Panel) -> dict[str, list[str]]:
        tf, names = panel.timeframe, [feature.name for feature in FEATURES]
        rows = read_features(workspace.database, tf, panel.assets, names)
        uris = {asset: stored[Partition(asset, tf.name)].uris for asset in panel.assets}
        files = read_panel(workspace.artifacts, tf.name, uris, SNAPSHOT_COLUMNS)
        hashed = content_versions(panel, hashed_columns(panel)).whole
        return {
            asset: [
                *_different("row", panel, rows, asset),
                *_different("snapshot", panel, files, asset),
                *(
                    ["version"]
                    if stored[Partition(asset, tf.name)].version != hashed[asset]
                    else []
                ),
            ]
            for asset in panel.assets
        }

    return _compared(workspace, chosen, compare)


@retried
def recomputed_signals(workspace: Workspace, n: int = PARTITIONS_LOOKED_AT) -> Recomputed:
    """Compare signals and their states with a full recomputation; see `recomputed_features`."""
    signals = presets_to_compute(workspace)
    read = columns_read(signals)
    chosen, _ = _sample(workspace, "signals", "features", signals_code(signals), n, read)

    def compare(panel: Panel) -> dict[str, list[str]]:
        with workspace.database.begin() as connection:
            ids = asset_ids(connection, panel.assets)
        bars = load_batch(workspace, "features", panel.timeframe.name, panel.assets, ())
        panel = with_own_columns(workspace, bars, read).own.on(panel)
        tf, names = panel.timeframe, mask_columns(signals)
        batch = conditions_batch(PanelBatch(panel, {}), signals)
        conditions, events = batch.conditions, batch.first_bars
        masks = load_batch(workspace, "signals", tf.name, panel.assets, names).panel
        whole = panel.with_columns(dict(zip(names, conditions, strict=True)))
        stored_events = read_events(workspace.database, tf, ids)
        states = read_states(workspace.database, panel.timeframe, list(ids.values()))
        expected = signal_states(batch, ids)
        try:
            stored = place_events(panel, signals, stored_events, ids)
        except BacktestError as error:
            return {asset: [str(error)] for asset in panel.assets}
        return {
            asset: [
                *_different("file of conditions", whole, masks, asset),
                *(["events"] if (events != stored)[:, panel.rows_of(asset)].any() else []),
                *(
                    f"state of signal {state.signal_id}"
                    for state in expected
                    if state.asset_id == ids[asset]
                    and states.get((state.signal_id, state.asset_id)) != state
                ),
            ]
            for asset in panel.assets
        }

    return _compared(workspace, chosen, compare)


def place_events(
    panel: Panel, signals: Sequence[SignalRow], stored: pa.Table, ids: Mapping[str, int]
) -> np.ndarray:
    """Stored events at the rows of the panel, uint8 `(n_signals, n_rows)`.

    Args:
        panel: the bars.
        signals: those to place; events of other signals are passed over.
        stored: columns signal_id, id, ts, is_long, is_entry.
        ids: asset id of each symbol with events.

    Raises:
        PartitionError: for an asset with an event at a stamp that is none of its bars.
    """
    signal_ids = [signal.signal_id for signal in signals]
    stored = stored.filter(pa.array(np.isin(stored["signal_id"].to_numpy(), signal_ids)))
    events = np.zeros((len(signals), len(panel)), np.uint8)
    if not stored.num_rows:
        return events
    asset = _positions([ids.get(asset, -1) for asset in panel.assets], stored["id"])
    ts = stored["ts"].cast(pa.int64()).to_numpy()
    keys, wanted = row_keys((panel.segment_of_row, panel.ts), (asset, ts))
    at = np.searchsorted(keys, wanted)
    lost = np.append(keys, -1)[at] != wanted
    if lost.any():
        culprit = int(asset[lost].min())
        raise PartitionError(
            panel.assets[culprit],
            panel.timeframe.name,
            f"{np.sum(lost & (asset == culprit))} of {np.sum(asset == culprit)} stored signals lie "
            "on no bar; refresh the signals with --full-rebuild",
        )
    is_long, is_entry = stored["is_long"].to_numpy(), stored["is_entry"].to_numpy()
    bit = np.where(
        is_long,
        np.where(is_entry, LONG_ENTRY, LONG_EXIT),
        np.where(is_entry, SHORT_ENTRY, SHORT_EXIT),
    ).astype(np.uint8)
    np.bitwise_or.at(events, (_positions(signal_ids, stored["signal_id"]), at), bit)
    return events


def _positions(known: Sequence[int], wanted: pa.ChunkedArray) -> np.ndarray:
    """Where in `known` each wanted id stands; all are there."""
    order = np.argsort(known)
    return order[np.searchsorted(known, wanted.to_numpy(), sorter=order)]


def hashed_columns(panel: Panel) -> list[str]:
    """Feature columns in the order in which their dataset version is hashed."""
    emas = [name for name in panel.columns if name.startswith("ema_")]
    return [
        *sorted(set(panel.columns) - set(emas)),
        *sorted(emas, key=lambda name: int(name.removeprefix("ema_"))),
    ]


def _sample(
    workspace: Workspace, dataset: str, made_of: str, code: str, n: int, columns: Sequence[str]
) -> tuple[list[Partition], Mapping[Partition, DatasetVersion]]:
    """A sample of the up-to-date partitions, and the versions of all stored ones."""
    with workspace.database.begin() as connection:
        stored = read_versions(connection, dataset, all_partitions(connection, dataset))
        inputs = read_versions(connection, made_of, stored)
        features = read_versions(connection, "features", stored)
        bars = read_versions(connection, "bars", stored)
    codes = codes_with_columns(workspace, code, list(stored), columns)
    current = [
        partition
        for partition, version in sorted(stored.items())
        if version.last_ts is not None
        and version.is_made_from(inputs[partition].version, codes[partition])
        and (
            workspace.external is not None
            or features[partition].is_made_from(bars[partition].version, FEATURES_CODE)
        )
    ]
    seed = int(combined(*(stored[p].version for p in current))[:8], 16)
    picked = np.random.default_rng(seed).permutation(len(current))[:n]
    return [current[i] for i in sorted(picked.tolist())], stored


def _compared(
    workspace: Workspace,
    partitions: Sequence[Partition],
    compare: Callable[[Panel], Mapping[str, Sequence[str]]],
) -> Recomputed:
    """Compare the partitions with their recomputed features, timeframe by timeframe."""
    rows, differing = 0, []
    for tf in dict.fromkeys(partition.timeframe for partition in partitions):
        assets = [p.asset for p in partitions if p.timeframe == tf]
        whole = _whole(workspace, tf, assets)
        rows += len(whole)
        differing += [
            f"{Partition(asset, timeframe(tf).name)}: {', '.join(what)}"
            for asset, what in compare(whole).items()
            if what
        ]
    return Recomputed(tuple(partitions), rows, tuple(differing))


def _whole(workspace: Workspace, tf: str, assets: Sequence[str]) -> Panel:
    """Features recomputed from stored bars; those of an external table as they were copied."""
    if workspace.external is not None:
        return load_batch(workspace, "features", tf, assets, SNAPSHOT_COLUMNS).panel
    return build_features(load_batch(workspace, "bars", tf, assets, BAR_COLUMNS).panel)


def _different(what: str, whole: Panel, stored: Panel, asset: str) -> list[str]:
    """The stored columns that differ from the full recomputation, in words."""
    mine, theirs = whole.rows_of(asset), stored.rows_of(asset)
    if not np.array_equal(whole.ts[mine], stored.ts[theirs]):
        return [f"timestamps of {what}s"]
    return [
        f"{name} of a {what}"
        for name, values in stored.columns.items()
        if not np.array_equal(whole[name][mine], values[theirs], equal_nan=values.dtype.kind == "f")
    ]
