"""Specs as Dagster runs: one executed at once, or a queued job whose attempts a sensor launches."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import dagster as dg
from dagster import DagsterExecutionInterruptedError
from pydantic import Field

from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.market.errors import SchemaNotMigrated
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.jobs.attempt import work_on
from backtest_pipeline.pipeline.jobs.requests import Ended, Launched, reconcile
from backtest_pipeline.pipeline.specs import spec_of
from backtest_pipeline.pipeline.stage import StageReport, Status
from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.postgres.migrations import check
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.storage.tables.job_queue import Attempt
from backtest_pipeline.storage.tables.jobs import Claim, stop_cancelled

JOB_TAG, ATTEMPT_TAG = "backtest/job", "backtest/attempt"
# Dagster terminates a run that is still going this long after the job's own timeout.
_GRACE_S = 120
_ASSETS = {"features": ("cmc_features", "feature_snapshots")}
_GONE = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS)
_CANCELLED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


class AttemptConfig(dg.Config):
    """The job, and the number of the attempt at it."""

    job_id: str
    attempt: int


@dg.op(description="Computes the units of a requested job that are not stored yet.")
def work_on_job(
    context: dg.OpExecutionContext,
    config: AttemptConfig,
    store: WorkspaceResource,
    simulation: SimulationResource,
) -> None:
    workspace = store.workspace
    claim = Claim(UUID(config.job_id), config.attempt, f"dagster:{context.run_id}")
    try:
        job = work_on(
            workspace,
            load_settings(),
            claim,
            dagster_run_id=context.run_id,
            simulation=simulation.config(),
            on_report=lambda report: _materialize(context, report, workspace.external is not None),
        )
    except DagsterExecutionInterruptedError:
        # Either Dagster is shutting down, and another attempt follows once the lease has expired,
        # or somebody cancelled the run.
        run = context.instance.get_run_by_id(context.run_id)
        if run is not None and run.status in _CANCELLED:
            with workspace.database.begin() as connection:
                stop_cancelled(connection, claim, "dagster")
        raise
    if job is None or job.status != "completed":
        reason = "another attempt has taken over" if job is None else job.error_message
        raise dg.Failure(
            f"job {claim.job_id}, attempt {claim.attempt}: "
            f"{reason or f'cancelled by {job.cancel_requested_by if job else None}'}",
            allow_retries=False,
        )
    context.log.info(f"job {job.job_id}: {job.n_units} units, {len(job.result_run_ids)} runs")


def _materialize(context: dg.OpExecutionContext, report: StageReport, external: bool) -> None:
    """Log a materialization of each partition that a stage of a refresh stored."""
    asset = _ASSETS[report.stage][external] if report.stage in _ASSETS else report.stage
    for outcome in report.outcomes:
        if outcome.status is not Status.FAILED:
            context.log_event(
                dg.AssetMaterialization(
                    asset,
                    partition=str(outcome.partition),
                    metadata={"status": outcome.status.value, "rows": outcome.rows},
                )
            )


@dg.job(
    name="requested",
    executor_def=dg.in_process_executor,
    description="Makes one attempt at a requested job, a row of the table backtest_jobs.",
)
def requested_job() -> None:
    work_on_job()


class SpecConfig(dg.Config):
    """The spec to execute."""

    spec: dict[str, Any] = Field(
        description="fields of a RunSpec, WalkForwardSpec, SweepSpec or PortfolioSpec, including "
        "`kind` (run, walkforward, optimize or portfolio)"
    )


@dg.op(out=dg.Out(dg.Nothing), description="Executes a spec and attaches its result as metadata.")
def execute_spec(
    context: dg.OpExecutionContext, config: SpecConfig, store: WorkspaceResource
) -> None:
    result = execute(store.workspace, load_settings(), spec_of(config.spec))
    context.add_output_metadata({"result": dg.MetadataValue.json(result.model_dump(mode="json"))})


@dg.job(
    name="execute",
    executor_def=dg.in_process_executor,
    description="Executes one spec, exactly as Python, the command line and the service do.",
)
def execute_job() -> None:
    execute_spec()


@dg.sensor(
    name="requested_jobs",
    job=requested_job,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches requested jobs, and relaunches those whose worker was lost.",
)
def requested_jobs(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    database = open_database(load_settings())
    try:
        check(database)
        attempts_to_launch = reconcile(
            database, lambda attempts: launched_runs(context.instance, attempts)
        )
    except SchemaNotMigrated as error:  # skipped, or every tick would fail until somebody migrates
        return dg.SkipReason(str(error))
    finally:
        database.close()
    if not attempts_to_launch:
        return dg.SkipReason("no jobs are waiting")
    return dg.SensorResult(run_requests=[_request(attempt) for attempt in attempts_to_launch])


def _request(attempt: Attempt) -> dg.RunRequest:
    job_id, number = str(attempt.job_id), attempt.attempt
    return dg.RunRequest(
        run_key=f"{job_id}/{number}",
        run_config={"ops": {"work_on_job": {"config": {"job_id": job_id, "attempt": number}}}},
        tags={
            JOB_TAG: job_id,
            ATTEMPT_TAG: str(number),
            "dagster/max_runtime": str(attempt.timeout_s + _GRACE_S),
        },
    )


def launched_runs(instance: dg.DagsterInstance, attempts: Sequence[Attempt]) -> Launched:
    """The Dagster runs of these attempts: which are under way, and how the others ended."""
    ids = sorted({str(attempt.job_id) for attempt in attempts})
    under_way, ended = set(), {}
    for run in instance.get_runs(dg.RunsFilter(tags={JOB_TAG: ids})):
        key = (UUID(run.tags[JOB_TAG]), int(run.tags[ATTEMPT_TAG]))
        if run.status in _GONE:
            cancelled = run.status is dg.DagsterRunStatus.CANCELED
            ended[key] = Ended(cancelled, f"Dagster run {run.run_id} ended as {run.status.value}")
        else:
            under_way.add(key)
    return Launched(frozenset(under_way), ended)


def terminate_runs(instance: dg.DagsterInstance, job_id: UUID) -> list[str]:
    """Have Dagster cancel the queued and running runs of a job; returns their ids."""
    unfinished = [status for status in dg.DagsterRunStatus if status not in _GONE]
    of_job = dg.RunsFilter(tags={JOB_TAG: str(job_id)}, statuses=unfinished)
    runs = [run.run_id for run in instance.get_runs(of_job)]
    for run_id in runs:
        instance.run_coordinator.cancel_run(run_id)
    return runs
