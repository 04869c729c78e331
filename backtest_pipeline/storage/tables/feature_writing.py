"""Writing the tables `cmc_features` and `cmc_ema_multi_tf_u`: all rows, or only newer ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.provenance import (
    Checkpoint,
    ContentVersions,
    combined,
    content_versions,
)
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    stored_versions,
    write_versions,
)
from backtest_pipeline.storage.tables.feature_checkpoints import (
    FeatureCheckpoint,
    write_checkpoints,
)
from backtest_pipeline.storage.tables.features import EMA, feature_types

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_NOTHING = np.iinfo(np.int64).min
_ARROW = {"float8": copy.floats, "int4": copy.integers, "bool": copy.booleans}


@dataclass(frozen=True)
class ComputedFeatures:
    """Features of assets at one timeframe, and what they were computed from.

    Attributes:
        panel: every feature column and any number of columns `ema_N`; of each asset all rows, or
            those after `since`.
        input_versions: for each symbol the version of the bars.
        code_version: of the code that computed it.
        since: the rows that were computed earlier and are not in the panel, by symbol.
        input_generations: for each symbol that of the bars; empty where nothing is to be resumed.
        standing: float64 `(n_averages, 2)` by symbol, to go on from the last whole batch of rows.
    """

    panel: Panel
    input_versions: Mapping[str, str]
    code_version: str
    since: Mapping[str, Checkpoint] = field(default_factory=dict)
    input_generations: Mapping[str, str] = field(default_factory=dict)
    standing: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureWrite:
    """The result of a write: assets by outcome, and the number of rows inserted.

    `unmatched` are assets whose newer rows do not continue the stored ones; nothing was written
    for them.
    """

    unchanged: tuple[str, ...]
    appended: tuple[str, ...]
    replaced: tuple[str, ...]
    unmatched: tuple[str, ...]
    n_rows: int


KeepFiles = Callable[[Panel, Mapping[str, tuple[str, ...]]], Mapping[str, tuple[str, ...]]]
"""Function that stores rows as files, given each asset's earlier files; returns all its files."""


def no_files(_rows: Panel, before: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """Store no files: only the tables hold the rows."""
    return before


def write_features(
    database: Database,
    computed: ComputedFeatures,
    ids: Mapping[str, int],
    *,
    keep_files: KeepFiles = no_files,
    replace: bool = False,
    made_from: str | None = None,
) -> FeatureWrite:
    """Store a batch of assets at one timeframe, in one transaction, with its dataset versions.

    If an asset's stored rows are the beginning of the given rows (by content hash), only newer rows
    are inserted; otherwise all its rows are replaced. Either way the given rows are stored
    afterwards. Values that are not finite are stored as NULL.

    Args:
        database: where to.
        computed: the rows; float64, bool or integer columns.
        ids: asset id of each symbol.
        keep_files: keeps what computations read of the rows: all of an asset whose rows are all
            given, else those that are appended.
        replace: replace every asset, whatever is stored.
        made_from: the stored dataset that `computed.input_versions` are of.

    Raises:
        StoreOvertaken: where that has been replaced since it was read.
        InvalidInput: where columns are missing, or are none of the table's.
        StoreError: for what the database refuses; nothing of the batch is stored then.
    """
    panel, since = computed.panel, computed.since
    tf = panel.timeframe.name
    ids = {asset: ids[asset] for asset in panel.assets}
    with database.writing() as connection, connection.cursor() as cursor:
        types = feature_types(cursor)
        emas = _check_columns(panel, types)
        copy.lock_cells(cursor, "features", tf, list(ids.values()))
        classes = _classes(cursor, ids)
        stored = stored_versions(cursor, "features", tf, ids)
        until = {a: v.last_ts for a, v in stored.items() if v.last_ts is not None}
        hashed = content_versions(panel, [*sorted(types), *emas], until, since)
        grown = {a for a, content in hashed.beginning.items() if content == stored[a].version}
        kept = {} if replace else {asset: until[asset] for asset in grown}
        unmatched = tuple(a for a in panel.assets if a in since and a not in kept)
        if unmatched:
            panel = panel.select([a for a in panel.assets if a not in unmatched])
            ids = {asset: ids[asset] for asset in panel.assets}
        last = np.array([kept.get(asset, _NOTHING) for asset in panel.assets], np.int64)
        fresh = panel.take(panel.ts > np.repeat(last, panel.lengths))
        outdated = [ids[a] for a in panel.assets if a not in kept and a in stored]
        for table in ("cmc_features", "cmc_ema_multi_tf_u") if outdated else ():
            statement = f"DELETE FROM {table} WHERE tf = $1 AND id = ANY($2::int[])"  # noqa: S608
            copy.run(cursor, statement, tf, outdated)
        copy.append(cursor, "cmc_features", _feature_rows(fresh, ids, classes, types))
        copy.append(cursor, "cmc_ema_multi_tf_u", _ema_rows(fresh, ids, emas))
        filed = fresh if all(a in since for a in panel.assets) else _filed(panel, fresh, since)
        uris = keep_files(filed, {a: stored[a].uris if a in since else () for a in panel.assets})
        before = {asset: (stored.get(asset), asset in grown) for asset in panel.assets}
        versions = {
            Partition(asset, tf): _version(computed, panel, asset, hashed, *of, uris[asset])
            for asset, of in before.items()
        }
        write_versions(cursor, "features", ids, versions, made_from=made_from)
        write_checkpoints(cursor, tf, ids, _checkpoints(computed, panel, hashed))
    added = dict(zip(fresh.assets, fresh.lengths > 0, strict=True))
    return FeatureWrite(
        replaced=tuple(a for a in panel.assets if a not in kept),
        appended=tuple(a for a in panel.assets if a in kept and added[a]),
        unchanged=tuple(a for a in panel.assets if a in kept and not added[a]),
        unmatched=unmatched,
        n_rows=len(fresh),
    )


def _filed(panel: Panel, fresh: Panel, since: Mapping[str, Checkpoint]) -> Panel:
    """Of an asset that is there whole all rows, of any other the fresh ones."""
    whole = panel.select([asset for asset in panel.assets if asset not in since])
    newer = fresh.select([asset for asset in panel.assets if asset in since])
    return Panel.join(panel.timeframe, panel.assets, [whole, newer], list(panel.columns))


def _version(
    computed: ComputedFeatures,
    panel: Panel,
    asset: str,
    hashed: ContentVersions,
    before: DatasetVersion | None,
    continues: bool,
    uris: tuple[str, ...],
) -> DatasetVersion:
    rows = panel.rows_of(asset)
    ts = panel.ts[rows]
    first = int(ts[0]) if len(ts) else None
    version = generation = hashed.whole[asset]
    if before is not None and continues:
        first, generation = before.first_ts, before.generation
    elif before is not None:
        # A replaced asset never gets a generation again that it had before, even where its rows
        # are those of long ago: what was made of the rows in between must not pass for current.
        generation = combined(before.generation, version)
    since = computed.since.get(asset)
    return DatasetVersion(
        version=version,
        input_version=computed.input_versions[asset],
        code_version=computed.code_version,
        generation=generation,
        n_rows=len(ts) + (since.n_rows if since else 0),
        first_ts=first,
        last_ts=int(ts[-1]) if len(ts) else before.last_ts if before and continues else None,
        uris=uris,
    )


def _checkpoints(
    computed: ComputedFeatures, panel: Panel, hashed: ContentVersions
) -> dict[str, FeatureCheckpoint]:
    return {
        asset: FeatureCheckpoint(
            computed.code_version,
            computed.input_generations[asset],
            hashed.checkpoints[asset],
            computed.standing[asset],
        )
        for asset in panel.assets
        if asset in computed.standing and hashed.checkpoints[asset].n_rows
    }


def _check_columns(panel: Panel, types: Mapping[str, str]) -> list[str]:
    """The panel's EMA columns, by period; raises InvalidInput unless the others are the table's."""
    emas = [name for name in panel.columns if EMA.fullmatch(name)]
    missing = [name for name in types if name not in panel.columns]
    strange = [name for name in panel.columns if name not in types and name not in emas]
    if missing or strange:
        raise InvalidInput(
            "the panel's columns do not match cmc_features; missing:"
            f" {', '.join(missing) or 'none'}; not in the table: {', '.join(strange) or 'none'}"
        )
    return sorted(emas, key=lambda name: int(name.removeprefix("ema_")))


def _classes(cursor: Cursor, ids: Mapping[str, int]) -> dict[str, str]:
    """The class of each asset; raises InvalidInput for an id that `dim_assets` does not have."""
    query = "SELECT id, asset_class FROM dim_assets WHERE id = ANY($1::int[])"
    rows = copy.fetch(cursor, query, list(ids.values()))
    by_id = dict(zip(rows["id"].to_pylist(), rows["asset_class"].to_pylist(), strict=True))
    unknown = [f"{asset} ({i})" for asset, i in ids.items() if i not in by_id]
    if unknown:
        raise InvalidInput(
            f"dim_assets has no row for {', '.join(unknown)}; refresh their bars first"
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
