"""Reading the tables `signals` and `signal_state`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from psycopg import sql

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.dimensions import asset_ids

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


@dataclass(frozen=True)
class SignalEvents:
    """Entry and exit events of any number of signals and assets at one timeframe.

    Attributes:
        signal_id: int, one for each event, as all the following.
        asset_id: int.
        ts: int64, close stamp of the bar in microseconds since 1970 UTC.
        is_long: bool; False is short.
        is_entry: bool; False is exit.
        close: float64, the bar's close.
        emas: values of the EMAs that were read, by period; NaN where an event read none.
    """

    signal_id: np.ndarray
    asset_id: np.ndarray
    ts: np.ndarray
    is_long: np.ndarray
    is_entry: np.ndarray
    close: np.ndarray
    emas: Mapping[int, np.ndarray]

    def __len__(self) -> int:
        return len(self.ts)


class Maker(NamedTuple):
    """What determines a signal's events on given rows: hash of its parameters, and code version."""

    params_hash: str
    signal_version: str


@dataclass(frozen=True)
class SignalState:
    """Where the refresh of one signal on one asset stopped.

    Attributes:
        signal_id: of `dim_signals`.
        asset_id: of `dim_assets`.
        last_ts: last feature row that was read, microseconds since 1970 UTC.
        long_since: first stamp of the stretch on which the long entry still holds; None where it
            does not.
        short_since: the same of the short side.
        failure: why the preset could not be computed on the asset; empty where it was.
    """

    signal_id: int
    asset_id: int
    last_ts: int
    long_since: int | None = None
    short_since: int | None = None
    failure: str = ""


def read_signals(
    database: Database,
    timeframe: Timeframe,
    assets: Sequence[str],
    *,
    snapshots: bool = False,
) -> pa.Table:
    """Read the events of these assets by asset, signal and time, exits before entries of a bar.

    Columns: signal_id, name, id, symbol, ts, direction, action, close, params_hash,
    feature_version, signal_version, and with `snapshots` the JSON text feature_snapshot.

    Raises:
        UnknownName: for an unknown asset.
    """
    with database.begin() as connection:
        ids = asset_ids(connection, assets)
    snapshot = sql.SQL(", s.feature_snapshot::text AS feature_snapshot" if snapshots else "")
    query = sql.SQL(
        "SELECT s.signal_id, d.name, s.id, a.symbol, s.ts, s.direction, s.action, s.close,"
        " s.params_hash, s.feature_version, s.signal_version{snapshot}"
        " FROM signals s JOIN dim_signals d USING (signal_id) JOIN dim_assets a ON a.id = s.id"
        " WHERE s.tf = $1 AND s.id = ANY($2::int[])"
        " ORDER BY array_position($2::int[], s.id), s.signal_id, s.ts, s.action DESC, s.direction"
    ).format(snapshot=snapshot)
    with database.arrow() as connection, connection.cursor() as cursor:
        return copy.fetch(cursor, query.as_string(), timeframe.name, list(ids.values()))


def read_events(database: Database, timeframe: Timeframe, ids: Mapping[str, int]) -> pa.Table:
    """Read the signals of these assets without their features.

    Args:
        database: where they are.
        timeframe: theirs.
        ids: asset id of each symbol.

    Returns:
        Columns signal_id, id, ts, is_long, is_entry, unordered.
    """
    query = (
        "SELECT signal_id, id, ts, direction = 'long' AS is_long, action = 'entry' AS is_entry"
        " FROM signals WHERE tf = $1 AND id = ANY($2::int[])"
    )
    with database.arrow() as connection, connection.cursor() as cursor:
        return copy.fetch(cursor, query, timeframe.name, list(ids.values()))


def read_states(
    database: Database, timeframe: Timeframe, ids: Sequence[int]
) -> dict[tuple[int, int], SignalState]:
    """The states of these assets' signals, by signal id and asset id."""
    query = (
        "SELECT signal_id, id, last_ts, long_since, short_since, coalesce(failure, '') AS failure"
        " FROM signal_state"
        " WHERE tf = $1 AND id = ANY($2::int[])"
    )
    with database.arrow() as connection, connection.cursor() as cursor:
        rows = copy.fetch(cursor, query, timeframe.name, list(ids))
    stamps = (rows[n].cast(pa.int64()) for n in ("last_ts", "long_since", "short_since"))
    columns = [c.to_pylist() for c in (rows["signal_id"], rows["id"], *stamps, rows["failure"])]
    return {row[:2]: SignalState(*row) for row in zip(*columns, strict=True)}


def read_makers(
    cursor: Cursor, timeframe: Timeframe, ids: Sequence[int]
) -> dict[tuple[int, int], Maker]:
    """The makers of these assets' stored events, by signal id and asset id.

    Of a pair that could not be computed there is none.
    """
    rows = copy.fetch(
        cursor,
        "SELECT signal_id, id, params_hash, signal_version FROM signal_state"
        " WHERE tf = $1 AND id = ANY($2::int[]) AND failure IS NULL",
        timeframe.name,
        list(ids),
    )
    columns = [column.to_pylist() for column in rows.itercolumns()]
    return {(signal, id_): Maker(*made_by) for signal, id_, *made_by in zip(*columns, strict=True)}


class FailedPreset(NamedTuple):
    """A preset that could not be computed on a partition, and why."""

    signal_id: int
    name: str
    partition: Partition
    reason: str


def failed_presets(
    connection: sa.Connection, partitions: Collection[Partition] | None = None
) -> list[FailedPreset]:
    """The active presets that could not be computed on these partitions, or on any."""
    rows = connection.execute(
        sa.text("""
            SELECT s.signal_id, d.name, a.symbol, s.tf, s.failure
            FROM signal_state s JOIN dim_signals d USING (signal_id) JOIN dim_assets a USING (id)
            WHERE s.failure IS NOT NULL AND d.is_active ORDER BY d.name, a.symbol, s.tf
        """)
    )
    found = [FailedPreset(row[0], row[1], Partition(row[2], row[3]), row[4]) for row in rows]
    wanted = None if partitions is None else set(partitions)
    return [one for one in found if wanted is None or one.partition in wanted]


def count_signals(
    connection: sa.Connection, *, symbols: Sequence[str], timeframes: Sequence[str]
) -> list[dict[str, Any]]:
    """Number of stored events by signal, and of assets with any."""
    rows = connection.execute(
        sa.text("""
            SELECT d.name AS signal, count(*) AS events, count(DISTINCT s.id) AS assets
            FROM signals s JOIN dim_signals d USING (signal_id) JOIN dim_assets a USING (id)
            WHERE a.symbol = ANY(:symbols) AND s.tf = ANY(:timeframes)
            GROUP BY d.name ORDER BY d.name
        """),
        {"symbols": list(symbols), "timeframes": list(timeframes)},
    )
    return [dict(row) for row in rows.mappings()]
