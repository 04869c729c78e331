"""The table `metric_counts`, which any number of processes add to, and other scraped figures.

Each count is a small upsert in its own transaction, with rows always in the same order, so that
concurrent counts wait only briefly and cannot deadlock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

# Nobody waits long for a count, and a scrape answers before Prometheus gives up.
_TIMEOUTS = text(
    "SELECT set_config('lock_timeout', '2s', TRUE), set_config('statement_timeout', '3s', TRUE)"
)
_GIVEN = """
    INSERT INTO metric_counts AS counted (name, labels, value)
    SELECT name, labels::jsonb, value
    FROM unnest(CAST(:names AS text[]), CAST(:labels AS text[]), CAST(:values AS float8[]))
        AS given (name, labels, value)
    ORDER BY name, labels
    ON CONFLICT (name, labels) DO UPDATE SET updated_at = now(), value =
"""
_LONG_AGO = "WHERE counted.updated_at < now() - make_interval(secs => :every)"


@dataclass(frozen=True)
class Key:
    """Key of a number: metric name, and sorted pairs of label name and value."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Count:
    """A number, and when it last changed."""

    key: Key
    value: float
    updated_at: datetime


@dataclass(frozen=True)
class Queue:
    """The state of the job queue at one moment.

    Attributes:
        by_status: number of jobs by status; a status without jobs is left out.
        oldest_pending_s: seconds since the oldest pending job was submitted; 0 without one.
        expired_leases: running jobs, and Dagster runs of commands, whose lease has expired.
    """

    by_status: Mapping[str, int]
    oldest_pending_s: float
    expired_leases: int


def add_counts(connection: Connection, added: Mapping[Key, float]) -> None:
    """Add to numbers; missing ones start at 0."""
    _put(connection, added, "counted.value + excluded.value")


def set_values(connection: Connection, values: Mapping[Key, float]) -> None:
    """Set numbers to these values."""
    _put(connection, values, "excluded.value")


def read_counts(connection: Connection) -> list[Count]:
    """All numbers, as of one moment."""
    connection.execute(_TIMEOUTS)
    rows = connection.execute(text("SELECT name, labels, value, updated_at FROM metric_counts"))
    return [Count(Key(n, tuple(sorted(of.items()))), value, at) for n, of, value, at in rows]


def read_queue(connection: Connection) -> Queue:
    """The current state of the job queue."""
    connection.execute(_TIMEOUTS)
    rows = connection.execute(
        text(
            "SELECT status, count(*) AS n,"
            " count(*) FILTER (WHERE lease_expires_at < now()) AS expired,"
            " EXTRACT(epoch FROM now() - min(created_at)) AS oldest_s"
            " FROM backtest_jobs GROUP BY status"
        )
    ).all()
    of_commands = text("SELECT count(*) FROM dagster_run_leases WHERE lease_expires_at < now()")
    dead_runs = int(connection.scalar(of_commands) or 0)
    return Queue(
        {row.status: row.n for row in rows},
        max((float(row.oldest_s) for row in rows if row.status == "pending"), default=0.0),
        sum(row.expired for row in rows) + dead_runs,
    )


def claim(connection: Connection, key: Key, every_s: float) -> bool:
    """Add 1 to a number last changed more than `every_s` seconds ago; returns whether it did.

    So that of many processes only one does a piece of periodic work.
    """
    connection.execute(_TIMEOUTS)
    claimed = text(f"{_GIVEN} counted.value + 1 {_LONG_AGO} RETURNING name")
    return connection.execute(claimed, _given({key: 1.0}) | {"every": every_s}).first() is not None


def database_bytes(connection: Connection) -> int:
    """Size of the database on disk."""
    return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


def _put(connection: Connection, numbers: Mapping[Key, float], value: str) -> None:
    connection.execute(_TIMEOUTS)
    connection.execute(text(f"{_GIVEN} {value}"), _given(numbers))


def _given(numbers: Mapping[Key, float]) -> dict[str, list[str] | list[float]]:
    return {
        "names": [key.name for key in numbers],
        "labels": [json.dumps(dict(key.labels), sort_keys=True) for key in numbers],
        "values": [float(number) for number in numbers.values()],
    }
