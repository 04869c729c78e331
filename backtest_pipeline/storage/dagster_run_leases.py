"""Leases of Dagster runs whose process nobody else looks after.

The process renews its lease while it lives. All times are the database's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

_EXPIRED = """
    SELECT dagster_run_id, command, holder, lease_expires_at FROM dagster_run_leases
    WHERE lease_expires_at < now() ORDER BY lease_expires_at, dagster_run_id"""


@dataclass(frozen=True)
class ExpiredLease:
    """A lease that its holder has not renewed in time.

    Attributes:
        dagster_run_id: id of the run in Dagster.
        command: the command that executes it.
        holder: host and process id.
        expired_at: when the lease expired.
    """

    dagster_run_id: str
    command: str
    holder: str
    expired_at: datetime

    def __str__(self) -> str:
        return (
            f"run {self.dagster_run_id} of `{self.command}` ({self.holder}) gave no sign of life "
            f"after {self.expired_at:%Y-%m-%d %H:%M:%S} UTC"
        )


def take_lease(
    connection: Connection, dagster_run_id: str, command: str, holder: str, lease_s: float
) -> None:
    """Record a lease on a run; one that there is passes to this holder."""
    connection.execute(
        text("""
            INSERT INTO dagster_run_leases (dagster_run_id, command, holder, lease_expires_at)
            VALUES (:run_id, :command, :holder, now() + make_interval(secs => :lease_s))
            ON CONFLICT (dagster_run_id) DO UPDATE
                SET holder = excluded.holder, lease_expires_at = excluded.lease_expires_at
        """),
        {"run_id": dagster_run_id, "command": command, "holder": holder, "lease_s": lease_s},
    )


def is_leased(connection: Connection, dagster_run_id: str) -> bool:
    """Whether there is a lease on a run, expired or not."""
    query = "SELECT EXISTS (SELECT FROM dagster_run_leases WHERE dagster_run_id = :run_id)"
    return bool(connection.scalar(text(query), {"run_id": dagster_run_id}))


def renew_lease(connection: Connection, dagster_run_id: str, lease_s: float) -> bool:
    """Renew a lease; False if the run was taken for dead, or its lease was released."""
    renewed = connection.execute(
        text("""
            UPDATE dagster_run_leases SET lease_expires_at = now() + make_interval(secs => :lease_s)
            WHERE dagster_run_id = :run_id
        """),
        {"run_id": dagster_run_id, "lease_s": lease_s},
    )
    return renewed.rowcount == 1


def release_lease(connection: Connection, dagster_run_id: str) -> None:
    """Delete the lease of a run that has ended."""
    connection.execute(
        text("DELETE FROM dagster_run_leases WHERE dagster_run_id = :run_id"),
        {"run_id": dagster_run_id},
    )


def expired_leases(connection: Connection) -> list[ExpiredLease]:
    """Expired leases, oldest first."""
    return [ExpiredLease(*row) for row in connection.execute(text(_EXPIRED))]


def lease_ids(connection: Connection, command: str) -> list[str]:
    """Ids of the runs that are leased by a command, expired or not."""
    query = "SELECT dagster_run_id FROM dagster_run_leases WHERE command = :command ORDER BY 1"
    return list(connection.scalars(text(query), {"command": command}))


def lock_expired_leases(connection: Connection) -> list[ExpiredLease]:
    """Expired leases that no other process is looking at, oldest first.

    Until the transaction ends they can be neither renewed nor released.
    """
    rows = connection.execute(text(f"{_EXPIRED} FOR UPDATE SKIP LOCKED"))
    return [ExpiredLease(*row) for row in rows]
