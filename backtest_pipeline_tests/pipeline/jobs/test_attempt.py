"""An attempt at a job does what is not stored yet, and ends it as it deserves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import (
    JobConflict,
    StoreOutOfReach,
)
from backtest_pipeline.pipeline.jobs import attempt
from backtest_pipeline.pipeline.jobs.attempt import work_on
from backtest_pipeline.pipeline.jobs.requests import Ended, Launched, reconcile, resume, submit
from backtest_pipeline.pipeline.specs import (
    CrossSectionSpec,
    JobSpec,
    RefreshSpec,
    RunSpec,
)
from backtest_pipeline.pipeline.stage import StageReport
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.storage.tables.jobs import Claim, Job, read_job, request_cancel, unit_results
from backtest_pipeline_tests.sql import distinct, execute_sql

EMA = RunSpec(symbol="S-ALPHA", strategy="ema", params={"fast": 8, "slow": 30})

RANKED = CrossSectionSpec(
    rules='kind = "cross_section"\nname = "strength"\nscore = "close / shift(close, 5)"\ncount = 1',
    timeframe="1W",
)


def submitted(workspace: Workspace, question: JobSpec) -> Job:
    return submit(workspace.database, question, "quant", most_combinations=500)


def of(*symbols: str, timeframes: tuple[str, ...] = ("1W",)) -> JobSpec:
    return JobSpec(spec=EMA, symbols=list(symbols), timeframes=list(timeframes))


def worked(
    workspace: Workspace,
    job: Job,
    worker: str = "w",
    told: Callable[[StageReport], None] = lambda _: None,
) -> Job | None:
    with workspace.database.begin() as connection:
        attempt = read_job(connection, job.job_id).attempt_count
    return work_on(
        workspace,
        load_settings(bars=""),
        Claim(job.job_id, attempt, worker),
        dagster_run_id=None,
        simulation=SimulationConfig(),
        on_report=told,
    )


def now(workspace: Workspace, job: Job) -> Job:
    with workspace.database.begin() as connection:
        return read_job(connection, job.job_id)


def change(workspace: Workspace, job: Job, assignment: str) -> None:
    execute_sql(
        workspace, f"UPDATE backtest_jobs SET {assignment} WHERE job_id = :job", job=job.job_id
    )


def run_ids(workspace: Workspace) -> set[UUID]:
    return distinct(workspace, "SELECT run_id FROM backtest_runs")


def test_a_job_is_completed_when_every_unit_is_stored(workspace: Workspace) -> None:
    job = submitted(workspace, of("S-ALPHA", "S-BETA", timeframes=("1W", "1M_CAL")))
    done = worked(workspace, job)
    assert done is not None
    assert (done.status, done.units_stored, done.progress_pct) == ("completed", 4, 100)
    assert set(done.result_run_ids) == run_ids(workspace)
    with workspace.database.begin() as connection:
        units = unit_results(connection, job.job_id)
        asked = connection.execute(sa.text("SELECT requested_by FROM run_requests")).scalars()
        assert set(asked) == {"quant"}
    assert set(units) == {"S-ALPHA|1W", "S-ALPHA|1M_CAL", "S-BETA|1W", "S-BETA|1M_CAL"}
    assert units["S-BETA|1W"]["result"]["symbol"] == "S-BETA"
    assert worked(workspace, job) is None  # it is over


def test_a_unit_that_fails_does_not_stop_the_others_and_the_job_says_which(
    workspace: Workspace,
) -> None:
    job = submitted(workspace, of("S-ALPHA", "NOBODY", "S-BETA"))
    done = worked(workspace, job)
    assert done is not None
    assert (done.status, done.error_code, done.units_stored) == ("failed", "UNITS_FAILED", 2)
    assert done.error_message is not None
    assert "1 of 3 units failed: NOBODY|1W: BAD_SYMBOL: unknown asset" in done.error_message


def test_a_cancelled_job_stops_between_units_and_keeps_what_is_stored(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "BEAT_S", 0.01)
    job = submitted(workspace, of("S-ALPHA", "S-BETA", "S-GAMMA"))

    def cancel(connection: sa.Connection) -> None:
        request_cancel(connection, job.job_id, "boss")

    done = worked(_after_units(workspace, job, 1, cancel, heard=True), job)
    assert done is not None
    assert (done.status, done.cancel_requested_by) == ("cancelled", "boss")
    assert done.units_stored == 1
    with pytest.raises(JobConflict, match="it is already cancelled"):
        request_cancel_of(workspace, job)


def test_a_resumed_job_computes_only_what_is_missing(workspace: Workspace) -> None:
    first = submitted(workspace, of("S-ALPHA", "NOBODY"))
    worked(workspace, first)
    again = resume(workspace.database, first.job_id, "quant", most_combinations=500)
    assert (again.units_stored, again.n_units, again.resumes) == (1, 2, first.job_id)
    done = worked(workspace, again)
    assert done is not None
    assert done.status == "failed"  # nobody is still nobody
    with workspace.database.begin() as connection:
        units = unit_results(connection, again.job_id)
        assert units["S-ALPHA|1W"]["attempt"] == 0  # of the job before
        connection.execute(sa.text("DELETE FROM backtest_runs"))
    third = resume(workspace.database, again.job_id, "quant", most_combinations=500)
    assert third.units_stored == 0  # a unit whose runs are gone is no unit that is stored
    with pytest.raises(JobConflict, match="is pending"):
        resume(
            workspace.database,
            submitted(workspace, of("S-ALPHA")).job_id,
            "quant",
            most_combinations=500,
        )


def test_an_old_cancellation_does_not_cancel_a_rerun(workspace: Workspace) -> None:
    job = submitted(workspace, of("S-ALPHA"))
    request_cancel_of(workspace, job)
    assert now(workspace, job).status == "cancelled"
    again = resume(workspace.database, job.job_id, "quant", most_combinations=500)
    done = worked(workspace, again)
    assert done is not None
    assert done.status == "completed"


def test_of_two_workers_on_one_job_one_works(workspace: Workspace) -> None:
    job = submitted(workspace, of("S-ALPHA"))
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda w: worked(workspace, job, w), "ab"))
    assert [end is None for end in ends].count(True) == 1
    assert now(workspace, job).status == "completed"


def test_a_late_worker_changes_nothing_after_another_has_taken_over(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "BEAT_S", 60.0)  # it does not hear of it by its pulse
    job = submitted(workspace, of("S-ALPHA", "S-BETA"))

    def lose(connection: sa.Connection) -> None:
        connection.execute(
            sa.text("""
                UPDATE backtest_jobs SET status = 'pending', lease_expires_at = NULL,
                    attempt_count = attempt_count + 1 WHERE job_id = :job
            """),
            {"job": job.job_id},
        )

    assert worked(_after_units(workspace, job, 1, lose), job, "late") is None
    assert now(workspace, job).status == "pending"
    done = worked(workspace, job, "new")
    assert done is not None
    assert (done.status, done.worker_id, done.attempt_count) == ("completed", "new", 2)


def test_a_job_that_takes_too_long_fails_with_its_time(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "BEAT_S", 0.01)
    job = submitted(workspace, of("S-ALPHA", "S-BETA", "S-GAMMA"))
    late = "started_at = now() - interval '2 hours'"

    def begin_before(connection: sa.Connection) -> None:
        _change(connection, job, late)

    done = worked(_after_units(workspace, job, 1, begin_before, heard=True), job)
    assert done is not None
    assert (done.status, done.error_code) == ("failed", "TIMEOUT")
    assert done.error_message == "not finished within 3600 s"


def test_a_lost_store_leaves_the_job_to_another_attempt(workspace: Workspace) -> None:
    job = submitted(workspace, of("S-ALPHA", "S-BETA"))

    def cut(_: sa.Connection) -> None:
        raise StoreOutOfReach("gone")

    with pytest.raises(StoreOutOfReach):
        worked(_after_units(workspace, job, 1, cut), job)
    assert now(workspace, job).status == "running"
    change(workspace, job, "lease_expires_at = now() - interval '1 second'")
    (attempt,) = reconcile(workspace.database, lambda _: Launched(frozenset(), {}))
    assert attempt.attempt == 2
    done = worked(workspace, job)
    assert done is not None
    assert (done.status, done.attempt_count) == ("completed", 2)


def test_a_live_lease_is_never_taken_over_whatever_dagster_says(workspace: Workspace) -> None:
    job = submitted(workspace, of("S-ALPHA"))
    alive = "status = 'running', worker_id = 'w', started_at = now()"
    change(workspace, job, f"{alive}, lease_expires_at = now() + interval '20 seconds'")
    dead = Launched(frozenset(), {(job.job_id, 1): Ended(True, "gone")})
    assert reconcile(workspace.database, lambda _: dead) == []
    assert now(workspace, job).status == "running"
    change(workspace, job, "lease_expires_at = now() - interval '1 second'")
    assert reconcile(workspace.database, lambda _: dead) == []
    assert now(workspace, job).status == "cancelled"


def test_a_refresh_job_stores_partitions_and_tells_what_each_stage_did(
    workspace: Workspace,
) -> None:
    question = RefreshSpec(symbols=["S-ALPHA", "S-BETA"], timeframes=["1W", "1M_CAL"])
    job = submitted(workspace, JobSpec(spec=question))
    told: list[str] = []
    done = worked(workspace, job, told=lambda report: told.append(report.stage))
    assert done is not None
    assert (done.status, done.units_stored) == ("completed", 4)
    assert told == ["bars", "features", "signals", "backtests"]
    assert set(done.result_run_ids) == run_ids(workspace)
    assert len(done.result_run_ids) == 4 * 6


def test_a_refresh_job_is_of_the_assets_and_timeframes_that_it_names(workspace: Workspace) -> None:
    question = RefreshSpec(symbols=["S-ALPHA"], timeframes=["1D"])
    asked = JobSpec(spec=question, symbols=["S-BETA"], timeframes=["1W"])
    job = submitted(workspace, asked)
    assert (job.symbols, job.timeframes) == (["S-BETA"], ["1W"])


def test_a_job_ranks_a_universe_at_each_timeframe(workspace: Workspace) -> None:
    """Of stored features: those of the symbols that it names, or of all."""
    symbols = ["S-ALPHA", "S-BETA", "S-GAMMA"]
    worked(workspace, submitted(workspace, of(*symbols, timeframes=("1W", "1M_CAL"))))
    job = submitted(workspace, JobSpec(spec=RANKED, timeframes=["1W", "1M_CAL"]))
    assert (job.kind, job.strategy, job.symbols) == ("cross_section", "strength", [])
    assert (job.timeframes, job.n_units) == (["1W", "1M_CAL"], 2)
    done = worked(workspace, job)
    assert done is not None
    assert (done.status, len(set(done.result_run_ids))) == ("completed", 2)
    few = submitted(workspace, JobSpec(spec=RANKED, symbols=symbols[:2]))
    assert (few.symbols, few.timeframes) == (symbols[:2], ["1W"])
    (made,) = worked_run_ids(workspace, few)
    assert made not in done.result_run_ids
    alone = worked(workspace, submitted(workspace, JobSpec(spec=RANKED, symbols=symbols[:1])))
    assert alone is not None
    assert "at least two" in (alone.error_message or "")


def test_a_refresh_job_without_a_single_bar_fails_with_the_reason(workspace: Workspace) -> None:
    question = RefreshSpec(symbols=["S-ALPHA"], timeframes=["1m"])
    done = worked(workspace, submitted(workspace, JobSpec(spec=question)))
    assert done is not None
    assert (done.status, done.units_stored) == ("failed", 0)
    assert "S-ALPHA|1m" in (done.error_message or "")


def test_a_run_that_is_removed_before_its_unit_is_recorded_is_made_again(
    workspace: Workspace,
) -> None:
    (old,) = worked_run_ids(workspace, submitted(workspace, of("S-ALPHA")))
    execute_sql(workspace, "DELETE FROM backtest_jobs")
    job = submitted(workspace, of("S-BETA", "S-ALPHA"))

    def capture(connection: sa.Connection) -> None:
        delete = sa.text("DELETE FROM backtest_runs WHERE run_id = :old")
        connection.execute(delete, {"old": old})

    done = worked(_after_units(workspace, job, 1, capture), job)
    assert done is not None
    assert done.status == "completed"
    assert old in set(done.result_run_ids) & run_ids(workspace)


def worked_run_ids(workspace: Workspace, job: Job) -> list[UUID]:
    done = worked(workspace, job)
    assert done is not None
    return done.result_run_ids


def request_cancel_of(workspace: Workspace, job: Job) -> Job:
    with workspace.database.begin() as connection:
        return request_cancel(connection, job.job_id, "boss")


def _change(connection: sa.Connection, job: Job, assignment: str) -> None:
    connection.execute(
        sa.text(f"UPDATE backtest_jobs SET {assignment} WHERE job_id = :job"), {"job": job.job_id}
    )


def _after_units(
    workspace: Workspace,
    job: Job,
    n: int,
    act: Callable[[sa.Connection], object],
    *,
    heard: bool = False,
) -> Workspace:
    """The same store, in which something happens once so many units are stored.

    Args:
        workspace: the store.
        job: whose units are counted.
        n: so many.
        act: what happens.
        heard: whether the work goes on only when its pulse has heard of it, and so has ended.
    """
    acted = []

    class Watched(type(workspace.database)):
        def begin(self):
            if not acted and _units_stored(workspace, job) >= n:
                acted.append(True)
                with workspace.database.begin() as connection:
                    act(connection)
            if acted and heard:
                for thread in threading.enumerate():
                    if thread.name == "pulse" and thread is not threading.current_thread():
                        thread.join()
            return super().begin()

    database = workspace.database
    watched = Watched(database.conninfo, database.engine, database.where, database.variable)
    object.__setattr__(watched, "_arrow", database._arrow)  # closed with the real one
    return replace(workspace, database=watched)


def _units_stored(workspace: Workspace, job: Job) -> int:
    with workspace.database.begin() as connection:
        return read_job(connection, job.job_id).units_stored
