"""Ops: execute a spec at once, or work on a queued job whose attempts a sensor launches."""

from typing import Any
from uuid import UUID

import dagster as dg
from dagster import DagsterExecutionInterruptedError
from pydantic import Field

from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.jobs.attempt import work_on
from backtest_pipeline.pipeline.specs import spec_of
from backtest_pipeline.pipeline.stage import StageReport, Status
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.storage.tables.jobs import Claim, stop_cancelled

_ASSETS = {"features": ("cmc_features", "feature_snapshots")}
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
