"""Jobs: their rows, and the only transitions of their status.

    pending -> running -> completed | failed | cancelled
    pending -> cancelled
    pending -> failed     if none of its attempts could be launched
    running -> pending    if its lease expired, as another attempt

Each is a single UPDATE guarded by the expected status and attempt, so that an abandoned worker can
no longer change anything. All times are the database's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import JobConflict, JobNotFound
from backtest_pipeline.storage.postgres.removals import block_removals

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = get_args(Status)
TERMINAL = ("completed", "failed", "cancelled")
MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Job:
    """A row of `backtest_jobs`, with its number of stored units."""

    job_id: UUID
    kind: str
    status: Status
    config: dict[str, Any]
    config_hash: str
    strategy: str | None
    symbols: list[str]
    timeframes: list[str]
    created_by: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    progress_pct: float
    stage: str
    n_units: int
    attempt_count: int
    worker_id: str | None
    lease_expires_at: datetime | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    timeout_s: int
    error_code: str | None
    error_message: str | None
    dagster_run_id: str | None
    result_run_ids: list[UUID]
    resumes: UUID | None
    units_stored: int

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True)
class Claim:
    """One worker's attempt at a job, which guards all its writes."""

    job_id: UUID
    attempt: int
    worker_id: str

    @property
    def bound(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "attempt": self.attempt, "worker_id": self.worker_id}


JOB_COLUMNS = """j.*, (SELECT count(*) FROM backtest_job_units u WHERE u.job_id = j.job_id)
    AS units_stored"""
_MINE = """job_id = :job_id AND status = 'running' AND attempt_count = :attempt
    AND worker_id = :worker_id"""


def job_of(row: Mapping[Any, Any]) -> Job:
    """A row of `backtest_jobs` with `units_stored` as a Job."""
    return Job(**{name: row[name] for name in Job.__dataclass_fields__})


def create_job(
    connection: Connection,
    *,
    kind: str,
    config: Mapping[str, Any],
    config_hash: str,
    strategy: str | None,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    created_by: str,
    n_units: int,
    timeout_s: int,
    resumes: UUID | None = None,
) -> Job:
    """Create a pending job; it reuses units of the job it `resumes` whose runs still exist."""
    job_id = connection.scalar(
        text("""
            INSERT INTO backtest_jobs (kind, config, config_hash, strategy, symbols, timeframes,
                created_by, n_units, timeout_s, resumes)
            VALUES (:kind, CAST(:config AS jsonb), :config_hash, :strategy, :symbols, :timeframes,
                :created_by, :n_units, :timeout_s, :resumes)
            RETURNING job_id
        """),
        {
            "kind": kind,
            "config": json.dumps(config, allow_nan=False),
            "config_hash": config_hash,
            "strategy": strategy,
            "symbols": list(symbols),
            "timeframes": list(timeframes),
            "created_by": created_by,
            "n_units": n_units,
            "timeout_s": timeout_s,
            "resumes": resumes,
        },
    )
    if resumes is not None:
        block_removals(connection)
        connection.execute(
            text("""
                INSERT INTO backtest_job_units (job_id, unit, run_ids, result, attempt, stored_at)
                SELECT :job_id, unit, run_ids, result, 0, stored_at
                FROM backtest_job_units
                WHERE job_id = :resumes AND NOT EXISTS (
                    SELECT FROM unnest(run_ids) AS gone
                    WHERE gone NOT IN (SELECT run_id FROM visible_runs))
            """),
            {"job_id": job_id, "resumes": resumes},
        )
    assert isinstance(job_id, UUID)  # noqa: S101  (what RETURNING gives)
    return read_job(connection, job_id)


def read_job(connection: Connection, job_id: UUID) -> Job:
    """The job of this id; raises JobNotFound."""
    rows = connection.execute(
        text(f"SELECT {JOB_COLUMNS} FROM backtest_jobs j WHERE job_id = :job_id"),  # noqa: S608
        {"job_id": job_id},
    )
    row = rows.mappings().one_or_none()
    if row is None:
        raise JobNotFound(f"there is no job {job_id}; run `backtest-pipeline jobs list` to see all")
    return job_of(row)


def request_cancel(connection: Connection, job_id: UUID, user: str) -> Job:
    """Cancel a pending job immediately, or request that a running one stop.

    Raises:
        JobNotFound: for an unknown id.
        JobConflict: for a job that has ended.
    """
    changed = connection.execute(
        text("""
            UPDATE backtest_jobs SET
                cancel_requested_at = coalesce(cancel_requested_at, now()),
                cancel_requested_by = coalesce(cancel_requested_by, :user),
                status = CASE status WHEN 'pending' THEN 'cancelled' ELSE status END,
                completed_at = CASE status WHEN 'pending' THEN now() END
            WHERE job_id = :job_id AND status IN ('pending', 'running')
        """),
        {"job_id": job_id, "user": user},
    )
    job = read_job(connection, job_id)
    if not changed.rowcount:
        raise JobConflict(f"job {job_id} cannot be cancelled: it is already {job.status}")
    return job


def claim_job(
    connection: Connection, claim: Claim, dagster_run_id: str | None, lease_s: float
) -> bool:
    """Begin an attempt; False if the job is not waiting for this attempt."""
    changed = connection.execute(
        text("""
            UPDATE backtest_jobs SET status = 'running', worker_id = :worker_id,
                started_at = coalesce(started_at, now()), dagster_run_id = :dagster_run_id,
                lease_expires_at = now() + make_interval(secs => :lease_s)
            WHERE job_id = :job_id AND status = 'pending' AND attempt_count = :attempt
        """),
        {**claim.bound, "dagster_run_id": dagster_run_id, "lease_s": lease_s},
    )
    return changed.rowcount == 1


@dataclass(frozen=True)
class Beat:
    """The response to a heartbeat: whether the attempt must stop, and why."""

    cancel_requested: bool
    timed_out: bool


def heartbeat(
    connection: Connection, claim: Claim, lease_s: float, progress_pct: float, stage: str
) -> Beat | None:
    """Renew the lease and report progress; None if the lease was lost."""
    row = connection.execute(
        text(f"""
            UPDATE backtest_jobs SET lease_expires_at = now() + make_interval(secs => :lease_s),
                progress_pct = greatest(progress_pct, :progress_pct), stage = :stage
            WHERE {_MINE}
            RETURNING cancel_requested_at IS NOT NULL,
                      now() > started_at + make_interval(secs => timeout_s)
        """),  # noqa: S608 - a literal
        {**claim.bound, "lease_s": lease_s, "progress_pct": progress_pct, "stage": stage},
    ).one_or_none()
    return None if row is None else Beat(*row)


def store_unit(
    connection: Connection,
    claim: Claim,
    unit: str,
    run_ids: Sequence[UUID],
    result: Mapping[str, Any],
) -> bool:
    """Record a unit of work whose results are stored; False if the lease was lost."""
    stored = connection.execute(
        text(f"""
            INSERT INTO backtest_job_units (job_id, unit, run_ids, result, attempt)
            SELECT job_id, :unit, CAST(:run_ids AS uuid[]), CAST(:result AS jsonb), :attempt
            FROM backtest_jobs WHERE {_MINE} FOR UPDATE
            ON CONFLICT (job_id, unit) DO UPDATE SET run_ids = excluded.run_ids,
                result = excluded.result, attempt = excluded.attempt, stored_at = now()
        """),  # noqa: S608 - a literal
        {
            **claim.bound,
            "unit": unit,
            "run_ids": list(run_ids),
            "result": json.dumps(result, allow_nan=False),
        },
    )
    return stored.rowcount == 1


def complete(connection: Connection, claim: Claim) -> bool:
    """Complete a job; False if units are missing, there are none, or the lease was lost."""
    changed = connection.execute(
        text(f"""
            UPDATE backtest_jobs j SET status = 'completed', completed_at = now(),
                lease_expires_at = NULL, progress_pct = 100, stage = '',
                result_run_ids = ARRAY(
                    SELECT DISTINCT run_id FROM backtest_job_units u, unnest(u.run_ids) AS run_id
                    WHERE u.job_id = j.job_id ORDER BY run_id)
            WHERE {_MINE} AND n_units > 0 AND n_units = (
                SELECT count(*) FROM backtest_job_units u WHERE u.job_id = j.job_id)
        """),  # noqa: S608 - a literal
        claim.bound,
    )
    return changed.rowcount == 1


def fail(connection: Connection, claim: Claim, code: str, message: str) -> bool:
    """Mark a job failed; False if the lease was lost."""
    changed = connection.execute(
        text(f"""
            UPDATE backtest_jobs SET status = 'failed', completed_at = now(),
                lease_expires_at = NULL, error_code = :code, error_message = :message
            WHERE {_MINE}
        """),  # noqa: S608 - a literal
        {**claim.bound, "code": code, "message": message},
    )
    return changed.rowcount == 1


def stop_cancelled(connection: Connection, claim: Claim, user: str) -> bool:
    """Mark a job cancelled; False if the lease was lost."""
    changed = connection.execute(
        text(f"""
            UPDATE backtest_jobs SET status = 'cancelled', completed_at = now(),
                lease_expires_at = NULL,
                cancel_requested_at = coalesce(cancel_requested_at, now()),
                cancel_requested_by = coalesce(cancel_requested_by, :user)
            WHERE {_MINE}
        """),  # noqa: S608 - a literal
        {**claim.bound, "user": user},
    )
    return changed.rowcount == 1


def stored_units(connection: Connection, job_id: UUID) -> set[str]:
    """The names of a job's stored units."""
    query = text("SELECT unit FROM backtest_job_units WHERE job_id = :job_id")
    return set(connection.execute(query, {"job_id": job_id}).scalars())


def unit_results(connection: Connection, job_id: UUID) -> dict[str, dict[str, Any]]:
    """A job's stored units by name, with their `result` and `run_ids`, sorted by name."""
    rows = connection.execute(
        text("""
            SELECT unit, run_ids, result, attempt, stored_at FROM backtest_job_units
            WHERE job_id = :job_id ORDER BY unit
        """),
        {"job_id": job_id},
    )
    return {row["unit"]: dict(row) for row in rows.mappings()}
