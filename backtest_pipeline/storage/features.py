"""The tables `cmc_features` and `cmc_ema_multi_tf_u`: panels in, panels out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from psycopg import sql

from backtest_pipeline.market.errors import BarsError, InvalidInput, UnknownName
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.storage import copy
from backtest_pipeline.storage.database import Database
from backtest_pipeline.storage.datasets import DatasetVersion, write_versions
from backtest_pipeline.storage.dimensions import asset_ids
from backtest_pipeline.storage.provenance import combined, content_versions

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_EMA = re.compile(r"ema_(\d+)")
_NOTHING = np.iinfo(np.int64).min
_WRITTEN_HERE = ("id", "ts", "tf", "tf_days", "asset_class", "updated_at")
_ARROW = {"float8": copy.floats, "int4": copy.integers, "bool": copy.booleans}


@dataclass(frozen=True)
class FeatureWrite:
    """What a write did: the assets by what happened to them, and the rows that were inserted."""

    unchanged: tuple[str, ...]
    appended: tuple[str, ...]
    replaced: tuple[str, ...]
    n_rows: int


def write_features(
    database: Database,
    panel: Panel,
    ids: Mapping[str, int],
    *,
    input_versions: Mapping[str, str],
    code_version: str,
    uris: Mapping[str, tuple[str, ...]] | None = None,
    replace: bool = False,
) -> FeatureWrite:
    """Store a block of assets at one timeframe, in one transaction, with its dataset versions.

    The panel holds the whole history of each asset, every feature column and any number of
    columns `ema_N`. An asset whose stored rows are the beginning of the panel's, by content hash,
    only gets the rows that are newer; any other is replaced. What is stored afterwards is the
    panel either way. Values that are not finite are stored as NULL.

    Args:
        database: where to.
        panel: the rows; float64, bool or integer columns.
        ids: asset id of each symbol.
        input_versions: for each symbol the version of the bars that it was computed from.
        code_version: the version of the code that computed it.
        uris: for each symbol the snapshots that hold what computations read of its rows.
        replace: replace every asset, whatever is stored.

    Raises:
        InvalidInput: where columns are missing, or are none of the table's.
        StoreError: for what the database refuses; nothing of the block is stored then.
    """
    ids = {asset: ids[asset] for asset in panel.assets}
    with database.arrow() as connection, connection.cursor() as cursor:
        types = _feature_types(cursor)
        emas = _check_columns(panel, types)
        hashed = [*sorted(types), *emas]
        copy.lock_cells(cursor, "features", panel.timeframe.name, list(ids.values()))
        classes = _classes(cursor, ids)
        stored = _stored_versions(cursor, panel.timeframe, ids)
        until = {} if replace else {asset: before.last_ts for asset, before in stored.items()}
        versions, beginnings = content_versions(panel, hashed, until)
        kept = _kept_until(panel, stored, beginnings)
        fresh = panel.take(panel.ts > np.repeat([kept[a] for a in panel.assets], panel.lengths))
        outdated = [ids[asset] for asset in panel.assets if kept[asset] == _NOTHING]
        for table in ("cmc_features", "cmc_ema_multi_tf_u"):
            statement = f"DELETE FROM {table} WHERE tf = $1 AND id = ANY($2::int[])"  # noqa: S608
            copy.run(cursor, statement, panel.timeframe.name, outdated)
        copy.append(cursor, "cmc_features", _feature_rows(fresh, ids, classes, types))
        copy.append(cursor, "cmc_ema_multi_tf_u", _ema_rows(fresh, ids, emas))
        # A replaced asset never gets a generation again that it had before, even where its rows
        # are those of long ago: what was made of the rows in between must not pass for current.
        generations = {
            asset: before.generation
            if kept[asset] != _NOTHING
            else combined(before.generation, versions[asset])
            for asset, before in stored.items()
        }
        write_versions(
            cursor,
            "features",
            ids,
            _versions(panel, versions, generations, input_versions, code_version, uris or {}),
        )
    grown = dict(zip(fresh.assets, fresh.lengths > 0, strict=True))
    return FeatureWrite(
        replaced=tuple(a for a in panel.assets if kept[a] == _NOTHING),
        appended=tuple(a for a in panel.assets if kept[a] != _NOTHING and grown[a]),
        unchanged=tuple(a for a in panel.assets if kept[a] != _NOTHING and not grown[a]),
        n_rows=len(fresh),
    )


def read_features(
    database: Database, timeframe: Timeframe, assets: Sequence[str], columns: Sequence[str]
) -> Panel:
    """The named columns, `ema_N` among them, of these assets, in the order asked; NULL as NaN.

    Raises:
        UnknownName: for an asset or a column that does not exist.
        BarsError: where a key is there twice.
    """
    with database.begin() as connection:
        ids = asset_ids(connection, assets)
    plain = [name for name in columns if not _EMA.fullmatch(name)]
    with database.arrow() as connection, connection.cursor() as cursor:
        types = _feature_types(cursor)
        for name in plain:
            if name not in types:
                raise UnknownName("feature", name, types)
        selected = sql.SQL(", ").join(sql.Identifier(name) for name in ("id", "ts", *plain))
        query = sql.SQL(
            "SELECT {} FROM cmc_features WHERE tf = $1 AND id = ANY($2::int[]) ORDER BY id, ts"
        ).format(selected)
        by_id = sorted(assets, key=ids.__getitem__)
        wanted = [ids[asset] for asset in by_id]
        rows = copy.fetch(cursor, query.as_string(), timeframe.name, wanted)
        panel = _panel_of(rows, timeframe, by_id, wanted)
        periods = sorted({int(m[1]) for name in columns if (m := _EMA.fullmatch(name))})
        if periods:
            panel = panel.with_columns(_read_emas(cursor, panel, wanted, periods))
    return panel.select(assets)


def _feature_types(cursor: Cursor) -> dict[str, str]:
    """Type of each feature column of the table, in its order, keys left out."""
    rows = copy.fetch(
        cursor,
        "SELECT a.attname::text AS name, t.typname::text AS type FROM pg_attribute a"
        " JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = 'cmc_features'::regclass"
        " AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    )
    types = dict(zip(rows["name"].to_pylist(), rows["type"].to_pylist(), strict=True))
    return {name: type_ for name, type_ in types.items() if name not in _WRITTEN_HERE}


def _check_columns(panel: Panel, types: Mapping[str, str]) -> list[str]:
    """The panel's EMA columns, by period; raises InvalidInput unless the others are the table's."""
    emas = [name for name in panel.columns if _EMA.fullmatch(name)]
    missing = [name for name in types if name not in panel.columns]
    strange = [name for name in panel.columns if name not in types and name not in emas]
    if missing or strange:
        raise InvalidInput(
            "the panel's columns are not those of cmc_features; missing:"
            f" {', '.join(missing) or 'none'}; not in the table: {', '.join(strange) or 'none'}"
        )
    return sorted(emas, key=lambda name: int(name.removeprefix("ema_")))


@dataclass(frozen=True)
class _Stored:
    version: str
    generation: str
    last_ts: int


def _stored_versions(
    cursor: Cursor, timeframe: Timeframe, ids: Mapping[str, int]
) -> dict[str, _Stored]:
    """What is stored of each asset that has a version; without rows it ends at `_NOTHING`."""
    rows = copy.fetch(
        cursor,
        "SELECT id, version, generation, last_ts FROM dataset_versions"
        " WHERE dataset = 'features' AND tf = $1 AND id = ANY($2::int[])",
        timeframe.name,
        list(ids.values()),
    )
    last = rows["last_ts"].cast(pa.int64()).fill_null(_NOTHING).to_pylist()
    values = zip(rows["version"].to_pylist(), rows["generation"].to_pylist(), last, strict=True)
    by_id = dict(zip(rows["id"].to_pylist(), values, strict=True))
    return {asset: _Stored(*by_id[i]) for asset, i in ids.items() if i in by_id}


def _kept_until(
    panel: Panel, stored: Mapping[str, _Stored], beginnings: Mapping[str, str]
) -> dict[str, int]:
    """For each asset the last stamp of its stored rows; `_NOTHING` where they must go."""
    kept = {a: stored[a].last_ts for a, v in beginnings.items() if v == stored[a].version}
    return {asset: kept.get(asset, _NOTHING) for asset in panel.assets}


def _classes(cursor: Cursor, ids: Mapping[str, int]) -> dict[str, str]:
    """The class of each asset; raises InvalidInput for an id that `dim_assets` does not have."""
    query = "SELECT id, asset_class FROM dim_assets WHERE id = ANY($1::int[])"
    rows = copy.fetch(cursor, query, list(ids.values()))
    by_id = dict(zip(rows["id"].to_pylist(), rows["asset_class"].to_pylist(), strict=True))
    strangers = [f"{asset} ({i})" for asset, i in ids.items() if i not in by_id]
    if strangers:
        raise InvalidInput(
            f"dim_assets has no row for {', '.join(strangers)}; refresh their bars first"
        )
    return {asset: by_id[i] for asset, i in ids.items()}


def _keys(panel: Panel, ids: Mapping[str, int]) -> dict[str, pa.Array]:
    each = np.array([ids[asset] for asset in panel.assets], np.int32)
    return {
        "id": pa.array(np.repeat(each, panel.lengths)),
        "ts": copy.stamps(panel.ts),
        "tf": pa.repeat(panel.timeframe.name, len(panel)),
    }


def _feature_rows(
    panel: Panel, ids: Mapping[str, int], classes: Mapping[str, str], types: Mapping[str, str]
) -> pa.Table:
    each = pa.array([classes[asset] for asset in panel.assets], pa.string())
    rows = _keys(panel, ids) | {
        "tf_days": pa.repeat(pa.scalar(round(panel.timeframe.days), pa.int32()), len(panel)),
        "asset_class": each.take(pa.array(panel.segment_of_row)),
    }
    return pa.table(rows | {name: _ARROW[type_](panel[name]) for name, type_ in types.items()})


def _ema_rows(panel: Panel, ids: Mapping[str, int], emas: Sequence[str]) -> pa.Table:
    """The EMA columns as rows in the order of the table's key; warm-up rows are left out."""
    if not emas:
        return pa.table({})
    values = np.column_stack([panel[name] for name in emas])
    row, ema = np.nonzero(np.isfinite(values))
    periods = np.array([int(name.removeprefix("ema_")) for name in emas], np.int32)
    rows = pa.table(_keys(panel, ids)).take(pa.array(row))
    rows = rows.append_column("period", pa.array(periods[ema]))
    return rows.append_column("ema", pa.array(values[row, ema]))


def _versions(
    panel: Panel,
    contents: Mapping[str, str],
    generations: Mapping[str, str],
    inputs: Mapping[str, str],
    code_version: str,
    uris: Mapping[str, tuple[str, ...]],
) -> dict[Partition, DatasetVersion]:
    bounds = panel.offsets.tolist()
    return {
        Partition(asset, panel.timeframe.name): DatasetVersion(
            version=contents[asset],
            input_version=inputs[asset],
            code_version=code_version,
            generation=generations.get(asset, contents[asset]),
            n_rows=end - start,
            first_ts=int(panel.ts[start]) if end > start else None,
            last_ts=int(panel.ts[end - 1]) if end > start else None,
            uris=uris.get(asset, ()),
        )
        for asset, (start, end) in zip(panel.assets, pairwise(bounds), strict=True)
    }


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
            f" {utc_index(ts[i : i + 1])[0]} more than once ({int(twice.sum())} such rows): its key"
            " must be (id, ts, tf); filter the source on any further key column"
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
        # One sortable number for each (asset, stamp): the assets lie span after span.
        first, span = panel.ts.min(), panel.ts.max() - panel.ts.min() + 1
        keys = panel.segment_of_row * span + (panel.ts - first)
        since = copy.stamps_of(rows["ts"]) - first
        wanted = np.searchsorted(ids, rows["id"].to_numpy()) * span + since
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        there = (keys[at] == wanted) & (since >= 0) & (since < span)
        ema = np.searchsorted(periods, rows["period"].to_numpy())
        emas[ema[there], at[there]] = copy.numbers(rows["ema"])[there]
    return {f"ema_{period}": values for period, values in zip(periods, emas, strict=True)}
