"""Reads rows of the external tables: selected columns as panels, and whole rows for signals.

Values are literals in the statements, because the driver uses COPY only without bound parameters.
On tables of 112 columns the server takes most of the time, so several sessions share the ids of a
large read: one session reached 380,000 to 510,000 rows/s, four together 820,000. The driver takes
longest over values one by one: the numbers of a row come as the bytes of one array without NULL,
which takes a third less processor time for 40 columns. From there each number is written to its
column and row at once, in blocks that fit the processor's cache: an eighteenth of the time that
decoding, joining, ordering and transposing take one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from psycopg import sql

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.market.row_keys import row_keys
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.storage.external.probe import FeatureTable, Relation
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.tables.signal_writing import FeatureRows

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_SESSIONS = 4
_ALONE = 8  # ids per session; fewer are not worth another session
_BLOCK = 1024  # rows written to their columns at once


def read_panel(
    table: FeatureTable,
    timeframe: Timeframe,
    assets: Sequence[str],
    ids: Sequence[int],
    columns: Sequence[str],
) -> Panel:
    """Read columns of these assets (one id each), in the given order, by time; NULL as NaN.

    Raises:
        BarsError: for a duplicate key, naming the asset and the timestamp.
        StoreError: for errors of the database.
    """
    rows = _read(table, table.features, timeframe, ids, columns)
    by_id = np.argsort(ids)
    segment = by_id[np.searchsorted(np.asarray(ids)[by_id], rows.ids)]
    order = np.lexsort((rows.ts, segment))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    segment, ts = segment[order], rows.ts[order]
    twice = (segment[1:] == segment[:-1]) & (ts[1:] == ts[:-1])
    if twice.any():
        i = int(twice.argmax())
        raise BarsError(
            f"{table.features.name} holds {assets[segment[i]]}|{timeframe.name} (id "
            f"{ids[segment[i]]}) at {utc_index(ts[i : i + 1])[0]} more than once "
            f"({int(twice.sum())} duplicate rows); if another column distinguishes them, add it to "
            "BACKTEST_FEATURES_FILTERS, otherwise remove the duplicates"
        )
    offsets = np.searchsorted(segment, np.arange(len(assets) + 1)).astype(np.int64)
    values = dict(zip(columns, rows.in_columns(position), strict=True))
    return Panel(timeframe, tuple(assets), offsets, ts, values)


def read_emas(
    table: FeatureTable,
    panel: Panel,
    ids: Sequence[int],
    periods: Sequence[int],
) -> dict[int, np.ndarray]:
    """The EMAs of these periods on the rows of a panel of `read_panel`; NaN where missing."""
    assert table.emas is not None  # noqa: S101  (the caller looks)
    of_periods = sql.SQL("period IN ({})").format(sql.SQL(", ").join(map(sql.Literal, periods)))
    rows = _read(table, table.emas, panel.timeframe, ids, ("period", "ema"), of_periods)
    emas = {period: np.full(len(panel), np.nan) for period in periods}
    if len(panel) and len(rows.ids):
        by_id = np.argsort(ids)
        segment = by_id[np.searchsorted(np.asarray(ids)[by_id], rows.ids)]
        keys, key_of_row = row_keys((panel.segment_of_row, panel.ts), (segment, rows.ts))
        at = np.minimum(np.searchsorted(keys, key_of_row), len(keys) - 1)
        matched = keys[at] == key_of_row
        of_row, values = rows.in_columns(np.arange(len(rows.ids)))
        for period, column in emas.items():
            chosen = matched & (of_row == period)
            if len(np.unique(at[chosen])) != chosen.sum():
                raise BarsError(
                    f"{table.emas.name} holds rows of period {period} at {panel.timeframe.name} "
                    "more than once; add the column that distinguishes them to "
                    "BACKTEST_FEATURES_FILTERS"
                )
            column[at[chosen]] = values[chosen]
    return emas


@dataclass(frozen=True)
class _Unordered:
    """Rows as they come.

    Attributes:
        ids: int64 `(n_rows,)`.
        ts: int64 `(n_rows,)`, microseconds since 1970 UTC.
        n_columns: how many numbers a row has.
        numbers: views of the sent bytes, each `(some rows, n_columns)`, NaN for NULL; together
            all rows.
    """

    ids: np.ndarray
    ts: np.ndarray
    n_columns: int
    numbers: Sequence[np.ndarray]

    def in_columns(self, position: np.ndarray) -> np.ndarray:
        """float64 `(n_columns, n_rows)`, each row at its position, int64 `(n_rows,)`."""
        values = np.empty((self.n_columns, len(position)))
        first = 0
        for numbers in self.numbers:
            for block in np.split(numbers, range(_BLOCK, len(numbers), _BLOCK)):
                values[:, position[first : first + len(block)]] = block.T
                first += len(block)
        return values


def _read(
    table: FeatureTable,
    relation: Relation,
    timeframe: Timeframe,
    ids: Sequence[int],
    columns: Sequence[str],
    condition: sql.Composable | None = None,
) -> _Unordered:
    """All rows of these ids, unordered."""
    numbers = sql.SQL(", ").join(
        sql.SQL("coalesce({}{}::float8, 'NaN')").format(
            sql.Identifier(name),
            sql.SQL("::int" if relation.columns[name] == "boolean" else ""),
        )
        for name in columns
    )

    def of(some: Sequence[int]) -> pa.Table:
        query = sql.SQL(
            "SELECT id::int4 AS id, ts, array_send(ARRAY[{}]::float8[]) AS numbers"
            " FROM {} WHERE tf = {} AND id IN ({}) AND {} AND {}"
        ).format(
            numbers,
            relation.identifier,
            sql.Literal(timeframe.name),
            sql.SQL(", ").join(map(sql.Literal, some)),
            relation.condition,
            condition or sql.SQL("TRUE"),
        )
        with table.database.arrow() as connection, connection.cursor() as cursor:
            return copy.fetch(cursor, query.as_string())

    parts = np.array_split(np.asarray(ids), min(_SESSIONS, max(1, len(ids) // _ALONE)))
    with ThreadPoolExecutor(len(parts), thread_name_prefix="external") as pool:
        rows = pa.concat_tables(pool.map(of, [part.tolist() for part in parts]))
    numbers = [_numbers_of(chunk, len(columns)) for chunk in rows["numbers"].chunks]
    return _Unordered(rows["id"].to_numpy(), copy.stamps_of(rows["ts"]), len(columns), numbers)


def _numbers_of(arrays: pa.Array, n_columns: int) -> np.ndarray:
    """A view `(n_rows, n_columns)` of arrays of doubles without NULL, as the server sends them.

    Each begins with 20 bytes: dimensions, flags, type, length and lower bound; an empty one has 12.
    """
    if n_columns == 0 or len(arrays) == 0:
        return np.empty((len(arrays), n_columns))
    number = np.dtype([("n_bytes", ">i4"), ("value", ">f8")])
    row = np.dtype([("head", "V20"), ("numbers", number, (n_columns,))])
    _, bounds, content = arrays.buffers()
    first = np.frombuffer(bounds, np.int32)[arrays.offset]
    rows = np.frombuffer(content, row, len(arrays), int(first))
    return rows["numbers"]["value"]


def feature_rows(
    table: FeatureTable, cursor: Cursor, timeframe: Timeframe, emas: Sequence[str]
) -> FeatureRows:
    """The whole feature rows of the events staged in a transaction of the store.

    The table is joined directly if the store's sessions can reach it; from another database the
    rows are fetched as JSON and staged next to the events.
    """
    relation = table.features
    known = [name for name in relation.columns if name != "updated_at"]
    added = [sql.Identifier("s", name) for name in emas if name not in known]
    if table.joined:
        rows = sql.SQL("(SELECT * FROM {} WHERE tf = $1 AND {})").format(
            relation.identifier, relation.condition
        )
        return FeatureRows(rows, [*(_finite(relation, name) for name in known), *added])
    keys = copy.fetch(cursor, "SELECT DISTINCT id, ts FROM staged")
    copy.stage(cursor, "staged_rows", _whole_rows(table, timeframe, keys, known))
    return FeatureRows(
        sql.SQL("(SELECT id, ts, whole::jsonb AS whole FROM staged_rows)"), added, whole=True
    )


def _whole_rows(
    table: FeatureTable, timeframe: Timeframe, keys: pa.Table, columns: Sequence[str]
) -> pa.Table:
    """id, ts and the whole row as JSON text, for each key."""
    query = sql.SQL(
        "SELECT f.id::int4 AS id, f.ts, to_jsonb(whole)::text AS whole"
        " FROM (SELECT * FROM {} WHERE tf = $1 AND {}) f"
        " JOIN (SELECT id, timestamptz 'epoch' + us * interval '1 microsecond' AS ts"
        "  FROM unnest($2::int[], $3::bigint[]) AS k (id, us)) k USING (id, ts)"
        " CROSS JOIN LATERAL (SELECT {}) AS whole"
    ).format(
        table.features.identifier,
        table.features.condition,
        sql.SQL(", ").join(_finite(table.features, name) for name in columns),
    )
    with table.database.arrow() as connection, connection.cursor() as cursor:
        return copy.fetch(
            cursor,
            query.as_string(),
            timeframe.name,
            keys["id"].to_pylist(),
            copy.stamps_of(keys["ts"]).tolist(),
        )


def _finite(relation: Relation, name: str) -> sql.Composable:
    """A column of `f`, with values that JSON cannot represent as NULL."""
    column = sql.Identifier("f", name)
    if relation.columns[name] not in ("double precision", "real", "numeric"):
        return column
    # NaN is greater than infinity to Postgres.
    return sql.SQL("CASE WHEN {0} < 'infinity' AND {0} > '-infinity' THEN {0} END AS {1}").format(
        column, sql.Identifier(name)
    )
