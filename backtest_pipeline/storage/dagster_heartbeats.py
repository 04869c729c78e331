"""Signs of life of Dagster's daemon, as it writes them into the store."""

from __future__ import annotations

from sqlalchemy import Connection, text

_EXISTS = "SELECT to_regclass('dagster.daemon_heartbeats') IS NOT NULL"
# Each start of the daemon has an id; parts that an earlier one had, and this one has not, are not
# missed.
_AGES = """
    SELECT daemon_type, EXTRACT(epoch FROM (now() AT TIME ZONE 'UTC') - timestamp)
    FROM dagster.daemon_heartbeats WHERE daemon_id = (
        SELECT daemon_id FROM dagster.daemon_heartbeats ORDER BY timestamp DESC LIMIT 1)"""


def heartbeat_ages(connection: Connection) -> dict[str, float]:
    """Seconds since the last sign of life of each part of the daemon that was started last.

    Empty where no daemon has ever run on this store.
    """
    if not connection.scalar(text(_EXISTS)):
        return {}
    return {kind: float(age) for kind, age in connection.execute(text(_AGES))}
