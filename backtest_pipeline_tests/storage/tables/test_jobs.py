"""Whatever workers, users and reconciliation do in whatever order, a job's life stays sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from backtest_pipeline.market.errors import JobConflict, RowsRefused
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.job_queue import (
    Attempt,
    abandoned_attempts,
    not_launched,
    pending_attempts,
    take_over,
)
from backtest_pipeline.storage.tables.jobs import (
    MOST_ATTEMPTS,
    TERMINAL,
    Claim,
    claim_job,
    complete,
    create_job,
    fail,
    heartbeat,
    read_job,
    request_cancel,
    stop_cancelled,
    store_unit,
)
from backtest_pipeline_tests.sql import execute_sql

UNITS = ("A|1D", "B|1D")


@dataclass
class Expected:
    """What a job must look like, told by a model that knows no SQL."""

    status: str = "pending"
    attempt: int = 1
    worker: str | None = None
    expired: bool = False
    cancel: bool = False
    units: set[str] = field(default_factory=set)
    ended_as: str | None = None


class JobLife(RuleBasedStateMachine):
    """Two workers, users who cancel, leases that expire, an orchestrator that loses runs."""

    database: Database
    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[UUID, Expected] = {}

    def _holds(self, claim: Claim) -> bool:
        job = self.model[claim.job_id]
        return (job.status, job.attempt, job.worker) == (
            "running",
            claim.attempt,
            claim.worker_id,
        )

    def _end(self, job_id: UUID, status: str) -> None:
        job = self.model[job_id]
        assert job.ended_as is None
        job.status = job.ended_as = status
        job.worker = None

    @rule(target=jobs)
    def submit(self) -> UUID:
        with self.database.begin() as connection:
            job = create_job(
                connection,
                kind="run",
                config={"a": 1},
                config_hash="h",
                strategy="ema_crossover",
                symbols=["A", "B"],
                timeframes=["1D"],
                created_by="user",
                n_units=len(UNITS),
                timeout_s=3600,
            )
        self.model[job.job_id] = Expected()
        return job.job_id

    @rule(target=claims, job=jobs, late=st.integers(0, 1), worker=st.sampled_from("xy"))
    def claim(self, job: UUID, late: int, worker: str) -> Claim:
        expected = self.model[job]
        claim = Claim(job, max(1, expected.attempt - late), worker)
        with self.database.begin() as connection:
            got = claim_job(connection, claim, f"run-{worker}", 30.0)
        assert got == (expected.status == "pending" and claim.attempt == expected.attempt)
        if got:
            expected.status, expected.worker, expected.expired = "running", worker, False
        return claim

    @rule(claim=claims)
    def beat(self, claim: Claim) -> None:
        with self.database.begin() as connection:
            beat = heartbeat(connection, claim, 30.0, 10.0, "stage")
        assert (beat is not None) == self._holds(claim)
        if beat is not None:
            assert beat.cancel_requested == self.model[claim.job_id].cancel
            self.model[claim.job_id].expired = False

    @rule(claim=claims, unit=st.sampled_from(UNITS))
    def store(self, claim: Claim, unit: str) -> None:
        with self.database.begin() as connection:
            stored = store_unit(connection, claim, unit, [], {"ok": True})
        assert stored == self._holds(claim)
        if stored:
            self.model[claim.job_id].units.add(unit)

    @rule(claim=claims)
    def finish(self, claim: Claim) -> None:
        with self.database.begin() as connection:
            done = complete(connection, claim)
        whole = self.model[claim.job_id].units == set(UNITS)
        assert done == (self._holds(claim) and whole)
        if done:
            self._end(claim.job_id, "completed")

    @rule(claim=claims)
    def break_down(self, claim: Claim) -> None:
        with self.database.begin() as connection:
            done = fail(connection, claim, "RUN_ENGINE_ERROR", "broken")
        assert done == self._holds(claim)
        if done:
            self._end(claim.job_id, "failed")

    @rule(claim=claims)
    def obey(self, claim: Claim) -> None:
        with self.database.begin() as connection:
            done = stop_cancelled(connection, claim, "dagster")
        assert done == self._holds(claim)
        if done:
            self._end(claim.job_id, "cancelled")

    @rule(job=jobs)
    def cancel(self, job: UUID) -> None:
        expected = self.model[job]
        try:
            with self.database.begin() as connection:
                request_cancel(connection, job, "user")
        except JobConflict:
            assert expected.status in TERMINAL
            return
        assert expected.status not in TERMINAL
        expected.cancel = True
        if expected.status == "pending":
            self._end(job, "cancelled")

    @rule(job=jobs)
    def go_silent(self, job: UUID) -> None:
        execute_sql(
            self.database,
            """
                    UPDATE backtest_jobs SET lease_expires_at = now() - interval '1 second'
                    WHERE job_id = :job AND status = 'running'
                """,
            job=job,
        )
        if self.model[job].status == "running":
            self.model[job].expired = True

    @rule(cancelled=st.booleans())
    def reconcile(self, cancelled: bool) -> None:
        with self.database.begin() as connection:
            found = abandoned_attempts(connection)
        due = {j for j, e in self.model.items() if e.status == "running" and e.expired}
        assert {attempt.job_id for attempt in found} == due
        for attempt in found:
            expected = self.model[attempt.job_id]
            with self.database.begin() as connection:
                status = take_over(connection, attempt, cancelled=cancelled)
            if cancelled or expected.cancel:
                assert status == "cancelled"
                self._end(attempt.job_id, "cancelled")
            elif expected.attempt >= MOST_ATTEMPTS:
                assert status == "failed"
                self._end(attempt.job_id, "failed")
            else:
                assert status == "pending"
                expected.status, expected.worker = "pending", None
                expected.attempt += 1

    @rule(job=jobs)
    def take_over_what_lives(self, job: UUID) -> None:
        expected = self.model[job]
        if expected.expired and expected.status == "running":
            return
        with self.database.begin() as connection:
            attempt = Attempt(job, expected.attempt, 3600, None)
            assert take_over(connection, attempt, cancelled=True) is None

    @rule(job=jobs, cancelled=st.booleans())
    def lose_before_it_begins(self, job: UUID, cancelled: bool) -> None:
        expected = self.model[job]
        with self.database.begin() as connection:
            attempt = Attempt(job, expected.attempt, 3600, None)
            status = not_launched(connection, attempt, cancelled=cancelled, why="lost")
        if expected.status != "pending":
            assert status is None
        elif cancelled or expected.attempt >= MOST_ATTEMPTS:
            self._end(job, "cancelled" if cancelled else "failed")
            assert status == expected.status
        else:
            assert status == "pending"
            expected.attempt += 1

    @invariant()
    def rows_are_as_expected(self) -> None:
        with self.database.begin() as connection:
            waiting = {attempt.job_id for attempt in pending_attempts(connection)}
            jobs = [read_job(connection, job_id) for job_id in self.model]
        for job in jobs:
            expected = self.model[job.job_id]
            assert (job.status, job.attempt_count) == (expected.status, expected.attempt)
            assert job.units_stored == len(expected.units)
            assert (job.completed_at is not None) == (job.status in TERMINAL)
            assert (job.lease_expires_at is not None) == (job.status == "running")
            assert (job.job_id in waiting) == (job.status == "pending")
            if job.status == "completed":
                assert expected.units == set(UNITS)


def test_no_order_of_events_breaks_a_jobs_life(database: Database) -> None:
    class OnThisDatabase(JobLife):
        def __init__(self) -> None:
            self.database = database
            super().__init__()
            execute_sql(database, "DELETE FROM backtest_jobs")

    how = settings(max_examples=30, stateful_step_count=30)
    run_state_machine_as_test(OnThisDatabase, settings=how)


@pytest.mark.parametrize(
    "change",
    [
        "status = 'running'",
        "status = 'completed'",
        "status = 'failed', completed_at = now()",
        "timeout_s = 10",
        "status = 'done'",
        "progress_pct = 101",
    ],
)
def test_the_table_itself_refuses_rows_that_make_no_sense(database: Database, change: str) -> None:
    with database.begin() as connection:
        create_job(
            connection,
            kind="run",
            config={},
            config_hash="h",
            strategy=None,
            symbols=[],
            timeframes=[],
            created_by="u",
            n_units=1,
            timeout_s=300,
        )
    with pytest.raises(RowsRefused), database.begin() as connection:
        connection.execute(sa.text(f"UPDATE backtest_jobs SET {change}"))
