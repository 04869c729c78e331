"""Rows of the user's own tables: the columns that are read, in Arrow, and whole rows of signals.

Statements carry their values as literals: only without bound parameters does the driver use COPY,
and on tables of 112 columns the server needs most of the time. Several sessions share the ids of a
large read: alone, one reached 380,000 to 510,000 rows/s, four together 820,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from psycopg import sql

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.storage.external.probe import FeatureTable, Relation
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.tables.signal_writing import FeatureRows

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_SESSIONS = 4
_ALONE = 8  # ids that are not worth more sessions


def read_panel(
    table: FeatureTable,
    timeframe: Timeframe,
    assets: Sequence[str],
    ids: Sequence[int],
    columns: Sequence[str],
) -> Panel:
    """Columns of these assets (an id each), in the order given, sorted by time; NULL as NaN.

    Raises:
        BarsError: where a key is there twice; with the asset and the stamp.
        StoreError: for what the database reports.
    """
    rows = _read(table, table.features, timeframe, ids, columns)
    row_ids, ts = rows["id"].to_numpy(), copy.stamps_of(rows["ts"])
    by_id = np.argsort(ids)
    segment = by_id[np.searchsorted(np.asarray(ids)[by_id], row_ids)]
    order = np.lexsort((ts, segment))
    segment, ts = segment[order], ts[order]
    twice = (segment[1:] == segment[:-1]) & (ts[1:] == ts[:-1])
    if twice.any():
        i = int(twice.argmax())
        raise BarsError(
            f"{table.features.name} holds {assets[segment[i]]}|{timeframe.name} (id "
            f"{ids[segment[i]]}) at {utc_index(ts[i : i + 1])[0]} more than once "
            f"({int(twice.sum())} such rows): another column tells them apart; put it into "
            "BACKTEST_FEATURES_FILTERS, or remove the rows"
        )
    offsets = np.searchsorted(segment, np.arange(len(assets) + 1)).astype(np.int64)
    values = {name: copy.numbers(rows[name])[order] for name in columns}
    return Panel(timeframe, tuple(assets), offsets, ts, values)


def read_emas(
    table: FeatureTable,
    panel: Panel,
    ids: Sequence[int],
    periods: Sequence[int],
) -> dict[int, np.ndarray]:
    """The EMAs of these periods on the rows of a panel, as `read_panel` gives it; NaN for none."""
    assert table.emas is not None  # noqa: S101  (the caller looks)
    wanted = sql.SQL("period IN ({})").format(sql.SQL(", ").join(map(sql.Literal, periods)))
    rows = _read(table, table.emas, panel.timeframe, ids, ("period", "ema"), wanted)
    emas = {period: np.full(len(panel), np.nan) for period in periods}
    if len(panel) and rows.num_rows:
        # One sortable number for each (asset, stamp): the assets lie span after span.
        first, span = panel.ts.min(), np.ptp(panel.ts) + 1
        keys = panel.segment_of_row * span + (panel.ts - first)
        by_id = np.argsort(ids)
        segment = by_id[np.searchsorted(np.asarray(ids)[by_id], rows["id"].to_numpy())]
        since = copy.stamps_of(rows["ts"]) - first
        sought = segment * span + since
        at = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
        there = (keys[at] == sought) & (since >= 0) & (since < span)
        of_row, values = copy.numbers(rows["period"]), copy.numbers(rows["ema"])
        for period, column in emas.items():
            chosen = there & (of_row == period)
            if len(np.unique(at[chosen])) != chosen.sum():
                raise BarsError(
                    f"{table.emas.name} holds rows of period {period} at {panel.timeframe.name} "
                    "more than once; put the column that tells them apart into "
                    "BACKTEST_FEATURES_FILTERS"
                )
            column[at[chosen]] = values[chosen]
    return emas


def _read(
    table: FeatureTable,
    relation: Relation,
    timeframe: Timeframe,
    ids: Sequence[int],
    columns: Sequence[str],
    condition: sql.Composable | None = None,
) -> pa.Table:
    """id, ts and columns as doubles of all rows of these ids, in no order."""
    selected = sql.SQL(", ").join(
        sql.SQL("{0}{1}::float8 AS {0}").format(
            sql.Identifier(name),
            sql.SQL("::int" if relation.columns[name] == "boolean" else ""),
        )
        for name in columns
    )

    def of(some: Sequence[int]) -> pa.Table:
        query = sql.SQL(
            "SELECT id::int4 AS id, ts, {} FROM {} WHERE tf = {} AND id IN ({}) AND {} AND {}"
        ).format(
            selected,
            relation.identifier,
            sql.Literal(timeframe.name),
            sql.SQL(", ").join(map(sql.Literal, some)),
            relation.condition,
            condition or sql.SQL("TRUE"),
        )
        with table.database.arrow() as connection, connection.cursor() as cursor:
            return copy.fetch(cursor, query.as_string())

    parts = np.array_split(np.asarray(ids), min(_SESSIONS, max(1, len(ids) // _ALONE)))
    if len(parts) == 1:
        return of(list(ids))
    with ThreadPoolExecutor(len(parts), thread_name_prefix="external") as pool:
        return pa.concat_tables(pool.map(of, [part.tolist() for part in parts]))


def feature_rows(
    table: FeatureTable, cursor: Cursor, timeframe: Timeframe, emas: Sequence[str]
) -> FeatureRows:
    """The whole rows of the events that are staged in a transaction of the store.

    Where the store's sessions reach the table, it is joined; from another database the rows are
    fetched as JSON and staged beside the events.
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
    """id, ts and the row as JSON text, for each of the keys."""
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
    """A column of `f`; what JSON cannot hold is NULL."""
    column = sql.Identifier("f", name)
    if relation.columns[name] not in ("double precision", "real", "numeric"):
        return column
    # NaN is greater than infinity to Postgres.
    return sql.SQL("CASE WHEN {0} < 'infinity' AND {0} > '-infinity' THEN {0} END AS {1}").format(
        column, sql.Identifier(name)
    )
