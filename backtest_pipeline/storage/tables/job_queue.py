"""The job queue: attempts to launch, attempts with an expired lease, and listing jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.storage.postgres.pages import Page, older, page_of, require_limit
from backtest_pipeline.storage.tables.jobs import JOB_COLUMNS, MOST_ATTEMPTS, STATUSES, Job, job_of

LOST, NEVER_LAUNCHED, TIMEOUT = "WORKER_LOST", "NOT_LAUNCHED", "TIMEOUT"


@dataclass(frozen=True)
class Attempt:
    """An attempt at a job that waits for a worker, or whose lease has expired."""

    job_id: UUID
    attempt: int
    timeout_s: int
    dagster_run_id: str | None


def pending_attempts(connection: Connection) -> list[Attempt]:
    """Attempts to launch, oldest first."""
    rows = connection.execute(
        text("""
            SELECT job_id, attempt_count, timeout_s, dagster_run_id FROM backtest_jobs
            WHERE status = 'pending' ORDER BY created_at, job_id
        """)
    )
    return [Attempt(*row) for row in rows]


def abandoned_attempts(connection: Connection) -> list[Attempt]:
    """Attempts whose lease has expired, oldest first."""
    rows = connection.execute(
        text("""
            SELECT job_id, attempt_count, timeout_s, dagster_run_id FROM backtest_jobs
            WHERE status = 'running' AND lease_expires_at < now() ORDER BY created_at, job_id
        """)
    )
    return [Attempt(*row) for row in rows]


def take_over(connection: Connection, attempt: Attempt, *, cancelled: bool) -> str | None:
    """Abandon an attempt whose lease has expired; returns the job's new status, None if unchanged.

    The job is cancelled if that was requested (here, or in Dagster: `cancelled`), failed if its
    time or attempts are used up, and otherwise waits for another attempt.
    """
    return connection.scalar(
        text("""
            UPDATE backtest_jobs SET
                status = next, lease_expires_at = NULL,
                completed_at = CASE WHEN next <> 'pending' THEN now() END,
                attempt_count = attempt_count + CASE WHEN next = 'pending' THEN 1 ELSE 0 END,
                error_code = CASE WHEN next = 'failed'
                    THEN CASE WHEN late THEN :timeout ELSE :lost END END,
                error_message = CASE WHEN next = 'failed' THEN
                    CASE WHEN late THEN 'not finished within ' || timeout_s || ' s'
                    ELSE 'its worker was lost ' || attempt_count || ' times' END END
            FROM (
                SELECT job_id AS id, late, CASE
                    WHEN :cancelled OR cancel_requested_at IS NOT NULL THEN 'cancelled'
                    WHEN late OR attempt_count >= :most THEN 'failed' ELSE 'pending' END AS next
                FROM (
                    SELECT *, now() > started_at + make_interval(secs => timeout_s) AS late
                    FROM backtest_jobs
                    WHERE job_id = :job_id AND attempt_count = :attempt AND status = 'running'
                          AND lease_expires_at < now()
                    FOR UPDATE
                ) AS expired
            ) AS decided
            WHERE job_id = decided.id
            RETURNING status
        """),
        {
            "job_id": attempt.job_id,
            "attempt": attempt.attempt,
            "cancelled": cancelled,
            "most": MOST_ATTEMPTS,
            "timeout": TIMEOUT,
            "lost": LOST,
        },
    )


def not_launched(
    connection: Connection, attempt: Attempt, *, cancelled: bool, why: str
) -> str | None:
    """Handle an attempt that Dagster ended before a worker began it; returns the new status.

    None if a worker has begun it after all.
    """
    return connection.scalar(
        text("""
            UPDATE backtest_jobs SET
                status = next, completed_at = CASE WHEN next <> 'pending' THEN now() END,
                attempt_count = attempt_count + CASE WHEN next = 'pending' THEN 1 ELSE 0 END,
                error_code = CASE WHEN next = 'failed' THEN :code END,
                error_message = CASE WHEN next = 'failed' THEN :why END
            FROM (
                SELECT job_id AS id, CASE WHEN :cancelled THEN 'cancelled'
                    WHEN attempt_count >= :most THEN 'failed' ELSE 'pending' END AS next
                FROM backtest_jobs
                WHERE job_id = :job_id AND attempt_count = :attempt AND status = 'pending'
                FOR UPDATE
            ) AS decided
            WHERE job_id = decided.id
            RETURNING status
        """),
        {
            "job_id": attempt.job_id,
            "attempt": attempt.attempt,
            "cancelled": cancelled,
            "most": MOST_ATTEMPTS,
            "code": NEVER_LAUNCHED,
            "why": why,
        },
    )


@dataclass(frozen=True)
class JobFilter:
    """Filters on jobs; None or empty matches any.

    Attributes:
        created_by, kind, strategy, symbol, timeframe: exact values.
        status: one of `storage.tables.jobs.STATUSES`.
        created_from, created_until: UTC dates, half-open.
        text: text within the id, the kind, the strategy, a symbol, the user or the error.

    Raises:
        InvalidInput: for another status, or a range that ends before it begins.
    """

    created_by: str | None = None
    kind: str | None = None
    strategy: str | None = None
    symbol: str | None = None
    timeframe: str | None = None
    status: str | None = None
    created_from: date | None = None
    created_until: date | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.status not in (None, "", *STATUSES):
            raise InvalidInput(f"status must be one of {', '.join(STATUSES)}, not {self.status!r}")
        first, end = self.created_from, self.created_until
        if first is not None and end is not None and end <= first:
            raise InvalidInput(
                f"the range's end {end} is not after its start {first}; give as the end the day "
                "after the last"
            )


_CONDITIONS = {
    "created_by": "created_by = :created_by",
    "kind": "kind = :kind",
    "strategy": "strategy = :strategy",
    "symbol": ":symbol = ANY(symbols)",
    "timeframe": ":timeframe = ANY(timeframes)",
    "status": "status = :status",
    "created_from": "created_at >= CAST(:created_from AS date) AT TIME ZONE 'UTC'",
    "created_until": "created_at < CAST(:created_until AS date) AT TIME ZONE 'UTC'",
    "text": "position(lower(:text) IN lower(concat_ws(' ', job_id, kind, strategy,"
    " array_to_string(symbols, ' '), created_by, error_code, error_message))) > 0",
}


def list_jobs(
    connection: Connection, filters: JobFilter, limit: int = 50, after: str | None = None
) -> Page[Job]:
    """List jobs, newest first.

    Raises:
        InvalidInput: for an invalid limit or cursor.
    """
    given = {name: value for name, value in vars(filters).items() if value not in (None, "")}
    bound: dict[str, Any] = {**given, "limit": require_limit(limit) + 1}
    conditions = [
        "TRUE",
        *(_CONDITIONS[name] for name in given),
        *older(after, "created_at", "job_id", bound),
    ]
    rows = connection.execute(
        text(f"""
            SELECT {JOB_COLUMNS} FROM backtest_jobs j WHERE {" AND ".join(conditions)}
            ORDER BY created_at DESC, job_id DESC LIMIT :limit
        """),  # noqa: S608 - the conditions are the literals above, their values are bound
        bound,
    )
    page = page_of(rows.mappings().all(), limit, "created_at", "job_id")  # pyright: ignore[reportArgumentType]
    return Page(tuple(job_of(row) for row in page.rows), page.next)
