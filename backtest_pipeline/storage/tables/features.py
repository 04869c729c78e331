"""The tables `cmc_features` and `cmc_ema_multi_tf_u`: their columns, and panels out of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from psycopg import sql

from backtest_pipeline.market.errors import BarsError, UnknownName
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.market.row_keys import row_keys
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.dimensions import asset_ids

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

EMA = re.compile(r"ema_(\d+)")
_WRITTEN_HERE = ("id", "ts", "tf", "tf_days", "asset_class", "updated_at")


def read_features(
    database: Database, timeframe: Timeframe, assets: Sequence[str], columns: Sequence[str]
) -> Panel:
    """Read columns (including `ema_N`) of these assets, in the given order; NULL as NaN.

    Raises:
        UnknownName: for an unknown asset or column.
        BarsError: for a duplicate key.
    """
    with database.begin() as connection:
        ids = asset_ids(connection, assets)
    plain = [name for name in columns if not EMA.fullmatch(name)]
    with database.arrow() as connection, connection.cursor() as cursor:
        types = feature_types(cursor)
        for name in plain:
            if name not in types:
                raise UnknownName("feature", name, types)
        selected = sql.SQL(", ").join(sql.Identifier(name) for name in ("id", "ts", *plain))
        query = sql.SQL(
            "SELECT {} FROM cmc_features WHERE tf = $1 AND id = ANY($2::int[]) ORDER BY id, ts"
        ).format(selected)
        by_id = sorted(assets, key=ids.__getitem__)
        sorted_ids = [ids[asset] for asset in by_id]
        rows = copy.fetch(cursor, query.as_string(), timeframe.name, sorted_ids)
        panel = _panel_of(rows, timeframe, by_id, sorted_ids)
        periods = sorted({int(m[1]) for name in columns if (m := EMA.fullmatch(name))})
        if periods:
            panel = panel.with_columns(_read_emas(cursor, panel, sorted_ids, periods))
    return panel.select(assets)


def feature_types(cursor: Cursor) -> dict[str, str]:
    """Type of each feature column of the table, in its order, keys left out."""
    rows = copy.fetch(
        cursor,
        "SELECT a.attname::text AS name, t.typname::text AS type FROM pg_attribute a"
        " JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = 'cmc_features'::regclass"
        " AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    )
    types = dict(zip(rows["name"].to_pylist(), rows["type"].to_pylist(), strict=True))
    return {name: type_ for name, type_ in types.items() if name not in _WRITTEN_HERE}


def _panel_of(
    rows: pa.Table, timeframe: Timeframe, assets: Sequence[str], ids: Sequence[int]
) -> Panel:
    """Rows sorted by id and stamp as a panel; the ids ascend."""
    row_ids, ts = rows["id"].to_numpy(), copy.stamps_of(rows["ts"])
    twice = (row_ids[1:] == row_ids[:-1]) & (ts[1:] == ts[:-1])
    if twice.any():
        i = int(twice.argmax())
        raise BarsError(
            f"cmc_features holds {assets[list(ids).index(row_ids[i])]}|{timeframe.name} at"
            f" {utc_index(ts[i : i + 1])[0]} more than once ({int(twice.sum())} duplicate rows):"
            " its key must be (id, ts, tf); filter the source on any further key column"
        )
    bounds = np.searchsorted(row_ids, np.asarray(ids, row_ids.dtype))
    columns = {name: copy.numbers(rows[name]) for name in rows.column_names[2:]}
    return Panel(timeframe, tuple(assets), np.append(bounds, len(ts)).astype(np.int64), ts, columns)


def _read_emas(
    cursor: Cursor, panel: Panel, ids: Sequence[int], periods: Sequence[int]
) -> dict[str, np.ndarray]:
    """The EMAs of these periods on the panel's rows; NaN where there is none."""
    rows = copy.fetch(
        cursor,
        "SELECT id, ts, period, ema FROM cmc_ema_multi_tf_u"
        " WHERE tf = $1 AND id = ANY($2::int[]) AND period = ANY($3::int[])",
        panel.timeframe.name,
        list(ids),
        list(periods),
    )
    emas = np.full((len(periods), len(panel)), np.nan)
    if len(panel):
        keys, key_of_row = row_keys(
            (panel.segment_of_row, panel.ts),
            (np.searchsorted(ids, rows["id"].to_numpy()), copy.stamps_of(rows["ts"])),
        )
        at = np.minimum(np.searchsorted(keys, key_of_row), len(keys) - 1)
        matched = keys[at] == key_of_row
        ema = np.searchsorted(periods, rows["period"].to_numpy())
        emas[ema[matched], at[matched]] = copy.numbers(rows["ema"])[matched]
    return {f"ema_{period}": values for period, values in zip(periods, emas, strict=True)}
