"""Reads and trims single rows of Dagster's event log, on a connection of Dagster's storage.

A planned event of many partitions has them in its text, not in the column `partition`: as the JSON
of a set of keys, see `PLANNED_KEYS`. The names of tables have no schema, as the connection has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

PLANNED_KEYS = ("dagster_event", "event_specific_data", "partitions_subset", "subset", "__set__")
"""Where in the JSON of a planned event the partition keys are."""

_OF_PLANS = """
    FROM event_logs e WHERE e.asset_key = :asset AND e.partition IS NULL
        AND e.dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED' AND e.id > :after
        AND e.timestamp > coalesce(
            (SELECT wipe_timestamp FROM asset_keys WHERE asset_key = :asset), '-infinity')"""
_NEWEST = """
    SELECT max(e.id) AS id, e.partition
    FROM event_logs e JOIN unnest(CAST(:keys AS text[])) AS wanted (partition) USING (partition)
    WHERE e.asset_key = :asset AND e.dagster_event_type IN ({kinds})
        AND e.id > :after AND e.id < :before
        AND e.timestamp > coalesce(
            (SELECT wipe_timestamp FROM asset_keys WHERE asset_key = :asset), '-infinity')
    GROUP BY e.partition"""
_WITH_EVENT = "SELECT n.id, n.partition, e.event FROM ({newest}) n JOIN event_logs e USING (id)"
_OWN_PLANS = """
    SELECT id, event, partition FROM event_logs WHERE run_id = :run AND asset_key = :asset
        AND dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED' FOR UPDATE"""
_LAST_ID = 2**63 - 1


class PlannedRow(NamedTuple):
    """A planned event of several partitions: its id, its run, and the keys."""

    id: int
    run_id: str
    keys: tuple[str, ...]


class ReportedRow(NamedTuple):
    """The newest event of a partition: its id, and its tags."""

    id: int
    tags: dict[str, str]


def planned_rows(
    connection: Connection, asset: str, after: int = 0, runs: Sequence[str] | None = None
) -> list[PlannedRow]:
    """The planned events of several partitions of an asset, oldest first.

    Args:
        connection: of Dagster's storage.
        asset: the key of the asset, as Dagster stores it.
        after: only events with a greater id.
        runs: only events of these runs; of all where None.
    """
    query = f"SELECT e.id, e.run_id, e.event {_OF_PLANS}"
    bound: dict[str, Any] = {"asset": asset, "after": after}
    if runs is not None:
        query, bound = f"{query} AND e.run_id = ANY(:runs)", {**bound, "runs": list(runs)}
    rows = connection.execute(text(f"{query} ORDER BY e.id"), bound)
    found = [PlannedRow(row[0], row[1], _keys_in(row[2])) for row in rows]
    return [row for row in found if row.keys]


def runs_with_plans(connection: Connection, asset: str, after: int) -> list[str]:
    """The ids of the runs that have planned any partition of an asset after an event."""
    query = """
        SELECT DISTINCT run_id FROM event_logs WHERE asset_key = :asset AND id > :after
            AND dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'"""
    return list(connection.scalars(text(query), {"asset": asset, "after": after}))


def planned_by(
    connection: Connection, asset: str, after: int, runs: Sequence[str]
) -> dict[str, int]:
    """The newest event after one by which these runs planned a partition, by its key."""
    query = """
        SELECT partition, max(id) FROM event_logs
        WHERE asset_key = :asset AND dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'
            AND id > :after AND run_id = ANY(:runs) AND partition IS NOT NULL GROUP BY partition"""
    bound = {"asset": asset, "after": after, "runs": list(runs)}
    found = {row[0]: row[1] for row in connection.execute(text(query), bound)}
    for plan in planned_rows(connection, asset, after, runs):
        for key in plan.keys:
            found[key] = max(plan.id, found.get(key, 0))
    return found


def newest_plan(connection: Connection, asset: str, key: str) -> PlannedRow | None:
    """The newest planned event of several partitions that has one of this key."""
    having = "AND position(:quoted IN e.event) > 0 ORDER BY e.id DESC LIMIT 1"
    bound = {"asset": asset, "after": 0, "quoted": json.dumps(key)}
    row = connection.execute(text(f"SELECT e.id, e.run_id {_OF_PLANS} {having}"), bound).first()
    return PlannedRow(row[0], row[1], (key,)) if row else None


def take_from_plans(connection: Connection, asset: str, run_id: str, keys: Iterable[str]) -> None:
    """Take partitions out of what a run has planned; a row without any other is deleted."""
    gone = set(keys)
    emptied: list[int] = []
    for row in connection.execute(text(_OWN_PLANS), {"run": run_id, "asset": asset}).all():
        before = _keys_in(row[1]) if row[2] is None else (row[2],)
        left = [key for key in before if key not in gone]
        if len(left) == len(before):
            continue
        if not left:
            emptied.append(row[0])
            continue
        event = json.loads(row[1])
        _parent_of_keys(event)[PLANNED_KEYS[-1]] = left
        changed = {"event": json.dumps(event, separators=(",", ":")), "id": row[0]}
        connection.execute(text("UPDATE event_logs SET event = :event WHERE id = :id"), changed)
    if emptied:
        connection.execute(text("DELETE FROM event_logs WHERE id = ANY(:ids)"), {"ids": emptied})


def newest_reported(
    connection: Connection,
    asset: str,
    keys: Sequence[str],
    kinds: Sequence[str] = ("ASSET_MATERIALIZATION",),
    after: int = 0,
    before: int = _LAST_ID,
) -> dict[str, ReportedRow]:
    """The newest event of each partition that has one.

    Args:
        connection: of Dagster's storage.
        asset: the key of the asset, as Dagster stores it.
        keys: of the partitions.
        kinds: the types of events to look at.
        after: only events with a greater id.
        before: only events with a smaller id.
    """
    query = _WITH_EVENT.format(newest=_NEWEST.format(kinds=_in(kinds)))
    bound = {"asset": asset, "keys": list(keys), "after": after, "before": before}
    rows = connection.execute(text(query), bound)
    return {row[1]: ReportedRow(row[0], _tags_in(row[2])) for row in rows}


def newest_ids(
    connection: Connection, asset: str, keys: Sequence[str], kinds: Sequence[str]
) -> dict[str, int]:
    """The id of the newest event of each partition that has one of these types."""
    bound = {"asset": asset, "keys": list(keys), "after": 0, "before": _LAST_ID}
    rows = connection.execute(text(_NEWEST.format(kinds=_in(kinds))), bound)
    return {row[1]: row[0] for row in rows}


def _in(kinds: Sequence[str]) -> str:
    """Names of Dagster's as a list of SQL, by which the planner knows them."""
    return ", ".join(f"'{kind}'" for kind in kinds)


def _keys_in(event: str) -> tuple[str, ...]:
    parent = _parent_of_keys(json.loads(event))
    return tuple(parent.get(PLANNED_KEYS[-1], ()))


def _parent_of_keys(event: dict[str, Any]) -> dict[str, Any]:
    found: Any = event
    for name in PLANNED_KEYS[:-1]:
        found = found.get(name) or {}
    return found


def _tags_in(event: str) -> dict[str, str]:
    data = json.loads(event)["dagster_event"]["event_specific_data"]
    of = data.get("materialization") or data.get("asset_observation") or {}
    return of.get("tags") or {}
