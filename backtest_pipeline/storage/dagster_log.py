"""Trims Dagster's log: what happened in old runs goes, and what says how assets stand is kept.

Dagster's own way to delete a run takes the status of its assets with it. Here these are kept of old
runs, whatever their age:

- the newest materialization and observation of each partition;
- the materialization that each of the newest ones downstream was made from, or the last before it:
  by it Dagster judges whether the upstream data has changed since;
- planned materializations of runs that failed, where nothing came after them for a partition of
  theirs: that one failed;
- the newest evaluation of each check;
- runs that own any of these, and runs that a sensor of the user's own requested under a key: a key
  whose run is gone would be taken for a new one. Schedules, and the sensors of this package, never
  come back to a key of the past.

docs/operations.md says the same to users.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

_EXISTS = "SELECT to_regclass('dagster.event_logs') IS NOT NULL"

# Each into a table that lasts as long as the transaction, so that the planner knows its size.
_SELECTIONS = {
    "kinds": """
        VALUES ('ASSET_MATERIALIZATION', 'made'), ('ASSET_OBSERVATION', 'seen'),
               ('ASSET_MATERIALIZATION_PLANNED', 'planned')""",
    "old_runs": """
        SELECT run_id, status FROM dagster.runs
        WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')
            AND coalesce(to_timestamp(end_time) AT TIME ZONE 'UTC', update_timestamp) < :cutoff""",
    "old_events": """
        SELECT e.id, e.run_id, kinds.kind, e.asset_key, e.partition
        FROM dagster.event_logs e LEFT JOIN old_runs o USING (run_id)
            LEFT JOIN dagster.runs r USING (run_id) LEFT JOIN kinds USING (dagster_event_type)
        WHERE o.run_id IS NOT NULL OR (r.run_id IS NULL AND e.timestamp < :cutoff)""",
    "newest": """
        SELECT asset_key, kind, partition, max(id) AS id
        FROM dagster.event_logs JOIN kinds USING (dagster_event_type)
        WHERE asset_key IS NOT NULL AND kind <> 'planned' GROUP BY 1, 2, 3""",
    # Planned events of many partitions have them in their text, see `dagster_events`.
    "plans": """
        SELECT o.asset_key, coalesce(found.key, o.partition, '') AS partition, max(o.id) AS id
        FROM old_events o JOIN old_runs r USING (run_id) JOIN dagster.event_logs e USING (id)
            LEFT JOIN LATERAL jsonb_array_elements_text(
                e.event::jsonb #> '{dagster_event,event_specific_data}'
                #> '{partitions_subset,subset,__set__}') AS found (key) ON o.partition IS NULL
        WHERE o.kind = 'planned' AND r.status <> 'SUCCESS' GROUP BY 1, 2""",
    "pointers": """
        SELECT DISTINCT '["' || replace(found[1], '/', '", "') || '"]' AS asset_key,
               coalesce(n.partition, '') AS partition, found[2]::bigint AS pointer
        FROM newest n JOIN dagster.event_logs e USING (id)
        CROSS JOIN LATERAL regexp_matches(
            e.event, '"dagster/input_event_pointer/([^"]+)": ?"(\\d+)"', 'g') AS found
        WHERE n.kind = 'made'""",
    "kept": """
        SELECT id FROM old_events o JOIN newest n USING (id) WHERE n.kind IN ('made', 'seen')
        UNION
        SELECT max(o.id) FROM old_events o JOIN pointers p
            ON p.asset_key = o.asset_key AND p.partition = coalesce(o.partition, '')
        WHERE o.kind IN ('made', 'seen') AND o.id <= p.pointer
        GROUP BY o.asset_key, o.partition, p.pointer
        UNION  -- made from many partitions, such as a portfolio
        SELECT max(o.id) FROM old_events o JOIN (
            SELECT DISTINCT asset_key, pointer FROM pointers p WHERE NOT EXISTS (
                SELECT FROM newest n
                WHERE n.asset_key = p.asset_key AND coalesce(n.partition, '') = p.partition)
            ) many ON many.asset_key = o.asset_key
        WHERE o.kind IN ('made', 'seen') AND o.id <= many.pointer
        GROUP BY o.asset_key, o.partition, many.pointer
        UNION
        SELECT p.id FROM plans p LEFT JOIN newest made ON made.kind = 'made'
            AND made.asset_key = p.asset_key AND coalesce(made.partition, '') = p.partition
        WHERE coalesce(made.id, 0) < p.id""",
    "kept_checks": """
        SELECT max(id) AS id FROM dagster.asset_check_executions
        GROUP BY asset_key, check_name, partition""",
    "kept_runs": """
        SELECT run_id FROM old_events JOIN kept USING (id)
        UNION SELECT run_id FROM dagster.asset_check_executions JOIN kept_checks USING (id)
        UNION SELECT k.run_id FROM dagster.run_tags k WHERE k.key = 'dagster/run_key'
            AND NOT EXISTS (
                SELECT FROM dagster.run_tags t WHERE t.run_id = k.run_id AND (
                    t.key = 'dagster/schedule_name'
                    OR t.key = 'dagster/sensor_name' AND t.value = ANY(:own_sensors)))""",
    "old_snapshots": """
        SELECT DISTINCT unnest(ARRAY[r.snapshot_id::text, substring(
            r.run_body FROM '"execution_plan_snapshot_id": "([^"]+)"')]) AS snapshot_id
        FROM dagster.runs r JOIN old_runs USING (run_id)""",
}
OWN_SENSORS = (
    *("external_features", "portfolio_rollups_after_backtests"),
    *("replans", "requested_jobs"),
)
"""The sensors of this package that request runs under keys."""
_COLUMNS = {"kinds": " (dagster_event_type, kind)"}
_REMOVALS = {
    "dagster_events": """
        DELETE FROM dagster.event_logs e USING old_events o
        WHERE e.id = o.id AND NOT EXISTS (SELECT FROM kept k WHERE k.id = e.id)
            AND NOT (e.dagster_event_type LIKE 'PIPELINE\\_%'
                     AND EXISTS (SELECT FROM kept_runs k WHERE k.run_id = e.run_id))""",
    "dagster_event_tags": """
        DELETE FROM dagster.asset_event_tags t USING old_events o
        WHERE t.event_id = o.id AND NOT EXISTS (SELECT FROM kept k WHERE k.id = o.id)""",
    "dagster_checks": """
        DELETE FROM dagster.asset_check_executions c USING old_runs o
        WHERE c.run_id = o.run_id AND NOT EXISTS (SELECT FROM kept_checks k WHERE k.id = c.id)""",
    "dagster_run_tags": """
        DELETE FROM dagster.run_tags t USING old_runs o
        WHERE t.run_id = o.run_id AND NOT EXISTS (
            SELECT FROM kept_runs k WHERE k.run_id = o.run_id)""",
    "dagster_runs": """
        DELETE FROM dagster.runs r USING old_runs o
        WHERE r.run_id = o.run_id AND NOT EXISTS (
            SELECT FROM kept_runs k WHERE k.run_id = o.run_id)""",
    "dagster_snapshots": """
        DELETE FROM dagster.snapshots s USING old_snapshots o
        WHERE s.snapshot_id = o.snapshot_id AND NOT EXISTS (
            SELECT FROM dagster.runs r WHERE s.snapshot_id IN (r.snapshot_id, substring(
                r.run_body FROM '"execution_plan_snapshot_id": "([^"]+)"')))""",
    # What is to be done next follows from the newest tick, and from the cursor.
    "dagster_ticks": """
        DELETE FROM dagster.job_ticks t WHERE t.timestamp < :cutoff AND EXISTS (
            SELECT FROM dagster.job_ticks n
            WHERE n.job_origin_id = t.job_origin_id AND n.timestamp > t.timestamp)""",
    "dagster_evaluations": """
        DELETE FROM dagster.asset_daemon_asset_evaluations WHERE create_timestamp < :cutoff""",
    "dagster_backfills": """
        WITH gone AS (
            DELETE FROM dagster.bulk_actions WHERE timestamp < :cutoff
                AND status IN ('COMPLETED', 'COMPLETED_SUCCESS', 'COMPLETED_FAILED', 'FAILED',
                               'CANCELED')
            RETURNING key)
        DELETE FROM dagster.backfill_tags WHERE backfill_id IN (SELECT key FROM gone)""",
}


def trim_log(connection: Connection, cutoff: datetime) -> dict[str, int]:
    """Remove from Dagster's log what ended before the cutoff; returns rows removed by kind.

    Must be one transaction. What was never used by Dagster has no log.
    """
    if not connection.scalar(text(_EXISTS)):
        return {}
    cutoff = cutoff.astimezone(UTC).replace(tzinfo=None)  # as Dagster stores times
    bound = {"cutoff": cutoff, "own_sensors": list(OWN_SENSORS)}
    for name, selection in _SELECTIONS.items():
        columns = _COLUMNS.get(name, "")
        create = f"CREATE TEMPORARY TABLE {name}{columns} ON COMMIT DROP AS {selection}"
        connection.execute(text(create), _named_in(selection, bound))
        connection.execute(text(f"ANALYZE {name}"))
    return {
        kind: connection.execute(text(removal), _named_in(removal, bound)).rowcount
        for kind, removal in _REMOVALS.items()
    }


def _named_in(query: str, bound: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in bound.items() if f":{name}" in query}


def logged_runs(connection: Connection) -> set[str]:
    """The ids of Dagster's runs that have a log."""
    if not connection.scalar(text(_EXISTS)):
        return set()
    return set(connection.scalars(text("SELECT run_id FROM dagster.runs")))
