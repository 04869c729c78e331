"""Jobs as Dagster runs: launched once an attempt, and ended as their runs end."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import sqlalchemy as sa

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.sensors import requested_jobs
from backtest_pipeline.pipeline.jobs.requests import submit
from backtest_pipeline.pipeline.specs import JobSpec, RefreshSpec, RunSpec
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.jobs import Job, read_job

RUN = JobSpec(
    spec=RunSpec(symbol="S-ALPHA", strategy="ema", params={"fast": 9, "slow": 21}),
    timeframes=["1W"],
)
REFRESH = JobSpec(spec=RefreshSpec(symbols=["S-BETA"], timeframes=["1W"]))


def submitted(store: Database, question: JobSpec = RUN) -> Job:
    return submit(store, question, "quant", most_combinations=500)


def now(store: Database, job: Job) -> Job:
    with store.begin() as connection:
        return read_job(connection, job.job_id)


def ticked(instance: dg.DagsterInstance) -> Sequence[dg.RunRequest]:
    result = requested_jobs(dg.build_sensor_context(instance=instance))
    return list(result.run_requests or ()) if isinstance(result, dg.SensorResult) else []


def executed(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    return (
        build_definitions()
        .resolve_job_def("requested")
        .execute_in_process(
            request.run_config, instance=instance, tags=dict(request.tags), raise_on_error=False
        )
    )


def ended(instance: dg.DagsterInstance, request: dg.RunRequest, event: dg.DagsterEventType) -> None:
    """A run of the attempt that Dagster ended without our having begun it."""
    run = instance.create_run_for_job(
        build_definitions().resolve_job_def("requested"),
        run_config=request.run_config,
        tags=dict(request.tags),
    )
    if event is dg.DagsterEventType.RUN_FAILURE:
        instance.report_run_failed(run, "its process did not start")
    else:
        instance.report_run_canceled(run)


def test_a_waiting_job_is_launched_once_and_its_run_completes_it(
    store: Database, instance: dg.DagsterInstance
) -> None:
    assert ticked(instance) == []
    job = submitted(store)
    (request,) = ticked(instance)
    assert request.run_key == f"{job.job_id}/1"
    assert request.tags["dagster/max_runtime"] == "3720"
    assert executed(instance, request).success
    done = now(store, job)
    assert (done.status, done.units_stored) == ("completed", 1)
    assert ticked(instance) == []


def test_a_refresh_job_materializes_its_partitions(
    store: Database, instance: dg.DagsterInstance
) -> None:
    job = submitted(store, REFRESH)
    (request,) = ticked(instance)
    assert executed(instance, request).success
    assert now(store, job).status == "completed"
    for asset in ("bars", "cmc_features", "signals", "backtests"):
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) == {"S-BETA|1W"}


def test_a_run_that_fails_before_it_begins_is_tried_again_and_given_up_in_the_end(
    store: Database, instance: dg.DagsterInstance
) -> None:
    job = submitted(store)
    for attempt in (1, 2, 3):
        (request,) = ticked(instance)
        assert request.run_key == f"{job.job_id}/{attempt}"
        ended(instance, request, dg.DagsterEventType.RUN_FAILURE)
        assert ticked(instance) == []
        assert now(store, job).attempt_count == min(attempt + 1, 3)
    failed = now(store, job)
    assert (failed.status, failed.error_code) == ("failed", "NOT_LAUNCHED")
    assert "ended as FAILURE" in (failed.error_message or "")


def test_a_run_that_is_cancelled_in_dagster_before_it_begins_cancels_the_job(
    store: Database, instance: dg.DagsterInstance
) -> None:
    job = submitted(store)
    (request,) = ticked(instance)
    ended(instance, request, dg.DagsterEventType.RUN_CANCELED)
    assert ticked(instance) == []
    assert now(store, job).status == "cancelled"


def test_a_worker_that_died_is_replaced_also_when_nobody_looked_for_a_while(
    store: Database, instance: dg.DagsterInstance
) -> None:
    job = submitted(store)
    (request,) = ticked(instance)
    ended(instance, request, dg.DagsterEventType.RUN_FAILURE)
    with store.begin() as connection:  # as its worker left it
        connection.execute(
            sa.text("""
                UPDATE backtest_jobs SET status = 'running', worker_id = 'w', started_at = now(),
                    lease_expires_at = now() - interval '1 minute'
            """)
        )
    (again,) = ticked(instance)
    assert again.run_key == f"{job.job_id}/2"
    assert executed(instance, again).success
    assert now(store, job).status == "completed"
    assert not executed(instance, request).success  # the first one, were it to come back
    assert now(store, job).attempt_count == 2


def test_a_run_under_way_is_not_launched_again(
    store: Database, instance: dg.DagsterInstance
) -> None:
    submitted(store)
    (request,) = ticked(instance)
    instance.create_run_for_job(
        build_definitions().resolve_job_def("requested"),
        run_config=request.run_config,
        tags=dict(request.tags),
    )
    assert ticked(instance) == []
