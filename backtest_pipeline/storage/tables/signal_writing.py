"""Writing the tables `signals` and `signal_state`: events with their feature rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from psycopg import sql

from backtest_pipeline.market.errors import InvalidInput, RowsRefused, StoreOvertaken
from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    write_versions,
)

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


from backtest_pipeline.storage.tables.signals import Maker, SignalEvents, SignalState, read_makers


@dataclass(frozen=True)
class FeatureRows:
    """The feature rows of staged events, as SQL.

    Attributes:
        relation: relation used as `f`, with at least id and ts, of one timeframe (`$1`).
        columns: columns of the snapshot, of `f` and of the event `s`.
        whole: whether `f.whole` is JSON that the snapshot starts with.
    """

    relation: sql.Composable
    columns: Sequence[sql.Composable]
    whole: bool = False


RowsOf = Callable[["Cursor", Timeframe, Sequence[str]], FeatureRows]
"""Function that returns the feature rows of staged events, given the names of their EMAs."""
KeepMasks = Callable[[Mapping[Partition, DatasetVersion]], Mapping[Partition, DatasetVersion]]
"""Function that stores files of conditions, called in the transaction of the signals once nothing
can remove files, and returns the versions with them."""


def built_rows(cursor: Cursor, _timeframe: Timeframe, emas: Sequence[str]) -> FeatureRows:
    """The feature rows in `cmc_features`, where features are built from bars."""
    table = copy.fetch(
        cursor,
        "SELECT attname::text AS name FROM pg_attribute WHERE attrelid = 'cmc_features'::regclass"
        " AND attnum > 0 AND NOT attisdropped AND attname <> 'updated_at' ORDER BY attnum",
    )
    columns = [("f", name) for name in table["name"].to_pylist()] + [("s", ema) for ema in emas]
    return FeatureRows(
        sql.SQL("(SELECT * FROM cmc_features WHERE tf = $1)"),
        [sql.Identifier(*column) for column in columns],
    )


def write_signals(
    database: Database,
    timeframe: Timeframe,
    events: SignalEvents,
    states: Sequence[SignalState],
    *,
    makers: Mapping[int, Maker],
    ids: Mapping[str, int],
    versions: Mapping[Partition, DatasetVersion],
    since: Mapping[tuple[int, int], int] | None = None,
    kept: Iterable[tuple[int, int]] = (),
    rows_of: RowsOf = built_rows,
    keep_masks: KeepMasks = lambda versions: versions,
) -> int:
    """Store the events of (signal, asset) pairs in one transaction; returns their number.

    `states` names the pairs: each one's stored events are replaced, those from `since[pair]` on
    where that is given, else all. States of signals without a maker go: nobody will say of their
    events any more which rows they are of. The snapshot of the feature row is made in the
    database, so that its columns never travel; it holds every feature and the event's EMAs, and
    leaves out only when the row was written. `feature_version` is the version of the code that
    made it.

    Args:
        database: where to.
        timeframe: of all events.
        events: what the strategies gave.
        states: one for each (signal, asset) that was computed, with events or without.
        makers: what makes the events of each signal that refreshes compute, by its id.
        ids: asset id of each symbol.
        versions: what is recorded of the dataset `signals` for these partitions.
        since: first stamp that was computed anew of a (signal_id, asset_id).
        kept: the pairs of which all stored events are to stay.
        rows_of: where the feature rows lie.
        keep_masks: stores the conditions that the signals are the first bars of, and returns the
            versions with their files.

    Raises:
        StoreOvertaken: where the features have been replaced since they were read, or events that
            were to stay have another maker.
        InvalidInput: for an event whose pair has no state.
        RowsRefused: where an event has no feature row, or a feature row no dataset version;
            nothing of the batch is stored then.
    """
    _check_pairs(events, states)
    with database.writing() as connection, connection.cursor() as cursor:
        written = {state.asset_id for state in states} | {ids[p.asset] for p in versions}
        copy.lock_cells(cursor, "signals", timeframe.name, list(written))
        _require_makers(cursor, timeframe, (*(since or ()), *kept), makers)
        copy.stage(cursor, "computed", _state_rows(states, makers, since or {}))
        copy.stage(cursor, "staged", _event_rows(events, makers))
        copy.analyze(cursor, "computed", "signal_id", "id", "since")
        copy.analyze(cursor, "staged", "id", "ts")
        copy.run(
            cursor,
            "DELETE FROM signals s USING computed c WHERE s.signal_id = c.signal_id"
            " AND s.id = c.id AND s.tf = $1 AND s.ts >= coalesce(c.since, '-infinity')",
            timeframe.name,
        )
        rows = rows_of(cursor, timeframe, [f"ema_{period}" for period in events.emas])
        if _insert_events(cursor, timeframe, rows) != len(events):
            raise _lost(cursor, timeframe, len(events))
        _upsert_states(cursor, timeframe)
        copy.run(
            cursor,
            "DELETE FROM signal_state WHERE tf = $1 AND id = ANY($2::int[])"
            " AND NOT signal_id = ANY($3::int[])",
            timeframe.name,
            list(written),
            list(makers),
        )
        write_versions(cursor, "signals", ids, keep_masks(versions), made_from="features")
    return len(events)


def _require_makers(
    cursor: Cursor,
    timeframe: Timeframe,
    pairs: Collection[tuple[int, int]],
    makers: Mapping[int, Maker],
) -> None:
    stored = read_makers(cursor, timeframe, list({asset for _, asset in pairs}))
    if any(stored.get(pair) != makers[pair[0]] for pair in pairs):
        raise StoreOvertaken(
            f"signals at {timeframe.name} were replaced by those of other parameters or code while "
            "new ones were being added; try again"
        )


def _check_pairs(events: SignalEvents, states: Sequence[SignalState]) -> None:
    known = {(state.signal_id, state.asset_id) for state in states}
    seen = set(zip(events.signal_id.tolist(), events.asset_id.tolist(), strict=True))
    if not seen <= known:
        signal, asset = min(seen - known)
        raise InvalidInput(
            f"events of signal {signal} on asset {asset} have no SignalState;"
            f" give one for each computed pair ({len(seen - known)} are missing)"
        )


def _event_rows(events: SignalEvents, makers: Mapping[int, Maker]) -> pa.Table:
    made_by = [makers[i] for i in events.signal_id.tolist()]
    emas = {f"ema_{period}": copy.floats(values) for period, values in events.emas.items()}
    return pa.table(
        {
            "signal_id": copy.integers(events.signal_id),
            "id": copy.integers(events.asset_id),
            "ts": copy.stamps(events.ts),
            "is_long": copy.booleans(events.is_long),
            "is_entry": copy.booleans(events.is_entry),
            "close": copy.floats(events.close),
            "params_hash": pa.array([maker.params_hash for maker in made_by], pa.string()),
            "signal_version": pa.array([maker.signal_version for maker in made_by], pa.string()),
            **emas,
        }
    )


def _state_rows(
    states: Sequence[SignalState],
    makers: Mapping[int, Maker],
    since: Mapping[tuple[int, int], int],
) -> pa.Table:
    first = [since.get((state.signal_id, state.asset_id)) for state in states]
    return pa.table(
        {
            "signal_id": pa.array([s.signal_id for s in states], pa.int32()),
            "id": pa.array([s.asset_id for s in states], pa.int32()),
            "last_ts": copy.stamps([s.last_ts for s in states]),
            "long_since": copy.stamps([s.long_since for s in states]),
            "short_since": copy.stamps([s.short_since for s in states]),
            "params_hash": pa.array([makers[s.signal_id].params_hash for s in states], pa.string()),
            "signal_version": pa.array(
                [makers[s.signal_id].signal_version for s in states], pa.string()
            ),
            "failure": pa.array([s.failure or None for s in states], pa.string()),
            "since": copy.stamps(first),
        }
    )


def _insert_events(cursor: Cursor, timeframe: Timeframe, rows: FeatureRows) -> int:
    """Insert the staged events with their snapshots; returns how many found a feature row."""
    statement = sql.SQL(
        "WITH stored AS (INSERT INTO signals (signal_id, id, tf, ts, direction, action, close,"
        " feature_snapshot, params_hash, feature_version, signal_version)"
        " SELECT r.signal_id, r.id, $1, r.ts, CASE WHEN r.is_long THEN 'long' ELSE 'short' END,"
        " CASE WHEN r.is_entry THEN 'entry' ELSE 'exit' END, r.close,"
        " {whole} to_jsonb(r.snapshot), r.params_hash, r.code_version, r.signal_version"
        " FROM (SELECT s.*, v.code_version, snapshot {of_f}"
        "  FROM staged s"
        "  JOIN dataset_versions v ON v.dataset = 'features' AND v.id = s.id AND v.tf = $1"
        "  JOIN {relation} f ON f.id = s.id AND f.ts = s.ts"
        "  CROSS JOIN LATERAL (SELECT {columns}) AS snapshot) r"
        " RETURNING 1) SELECT count(*) AS n FROM stored"
    ).format(
        whole=sql.SQL("r.whole ||" if rows.whole else ""),
        of_f=sql.SQL(", f.whole" if rows.whole else ""),
        relation=rows.relation,
        columns=sql.SQL(", ").join(rows.columns),
    )
    return copy.fetch(cursor, statement.as_string(), timeframe.name)["n"][0].as_py()


def _upsert_states(cursor: Cursor, timeframe: Timeframe) -> None:
    columns = "last_ts long_since short_since failure params_hash feature_version signal_version"
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns.split())
    copy.run(
        cursor,
        "INSERT INTO signal_state (signal_id, id, tf, last_ts, long_since, short_since, failure,"  # noqa: S608
        " params_hash, feature_version, signal_version)"
        " SELECT c.signal_id, c.id, $1, c.last_ts, c.long_since, c.short_since, c.failure,"
        " c.params_hash, v.code_version, c.signal_version FROM computed c"
        " JOIN dataset_versions v ON v.dataset = 'features' AND v.id = c.id AND v.tf = $1"
        f" ON CONFLICT (signal_id, id, tf) DO UPDATE SET {updates}, updated_at = now()",
        timeframe.name,
    )


def _lost(cursor: Cursor, timeframe: Timeframe, expected: int) -> RowsRefused:
    lost = copy.fetch(
        cursor,
        "SELECT s.id, s.ts FROM staged s WHERE NOT EXISTS (SELECT FROM signals x"
        " WHERE x.signal_id = s.signal_id AND x.id = s.id AND x.tf = $1 AND x.ts = s.ts)"
        " ORDER BY s.id, s.ts",
        timeframe.name,
    )
    when = utc_index(copy.stamps_of(lost["ts"])[:1])[0]
    return RowsRefused(
        f"{lost.num_rows} of {expected} signals have no feature row or no dataset version,"
        f" the first on asset {lost['id'][0]} at {when} ({timeframe.name});"
        " refresh the features of these assets with --full-rebuild"
    )
