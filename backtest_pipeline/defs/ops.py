"""Ops: execute a spec at once, or work on a queued job whose attempts a sensor launches."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import dagster as dg
from dagster import DagsterExecutionInterruptedError
from pydantic import Field

from backtest_pipeline.defs import stored_events
from backtest_pipeline.defs.event_log.reported_partitions import ReportedPartitions
from backtest_pipeline.defs.partitions import register_partitions
from backtest_pipeline.defs.resources import (
    SimulationResource,
    SourceResource,
    WorkspaceResource,
)
from backtest_pipeline.defs.stage_assets import stored_rows
from backtest_pipeline.defs.stored_events import Lineage
from backtest_pipeline.market.partitions import usable_symbols
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.jobs.attempt import work_on
from backtest_pipeline.pipeline.specs import spec_of
from backtest_pipeline.pipeline.stage import StageReport
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.storage.tables.jobs import Claim, read_job, stop_cancelled

_MOST_NAMED = 5
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
    lineages: dg.ResourceParam[Mapping[str, Lineage]],
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
            on_report=_JobEvents(context, workspace, lineages, claim.job_id).report,
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


class _JobEvents:
    """Reports materializations of the partitions that the stages of a refresh store, in turn."""

    def __init__(
        self,
        context: dg.OpExecutionContext,
        workspace: Workspace,
        lineages: Mapping[str, Lineage],
        job_id: UUID,
    ) -> None:
        self._context, self._workspace, self._lineages = context, workspace, lineages
        with workspace.database.begin() as connection:
            self._is_rebuild = bool(read_job(connection, job_id).config.get("full_rebuild"))
        # Of each stage from before it began: what its inputs report later is no part of it.
        self._tags = {name: self._provenance(name) for name in self._lineages}

    def report(self, report: StageReport) -> None:
        context, name = self._context, report.stage
        if name == "features":
            name = "cmc_features" if self._workspace.external is None else "feature_snapshots"
        register_partitions(context.instance, {o.partition.asset for o in report.outcomes})
        stored, _ = stored_rows(self._workspace, report.stage, report.outcomes)
        asset, tags = dg.AssetKey(name), self._tags[name]
        # As in `StageIOManager`: what is rebuilt is reported whether it has changed or not.
        asked = [] if self._is_rebuild else stored
        keys = [rows.partition for rows in asked if rows.partition is not None]
        known = ReportedPartitions(context.instance, asset, context.run, tags, keys)
        same = set(known.same({str(rows.partition): rows.version for rows in stored}))
        news = [rows for rows in stored if rows.partition not in same]
        events = [stored_events.materialization(asset, rows, tags) for rows in news]
        stored_events.report(context.get_step_execution_context(), events)
        for reader, lineage in self._lineages.items():
            if asset in lineage.inputs:
                self._tags[reader] = self._provenance(reader)

    def _provenance(self, name: str) -> dict[str, str]:
        return stored_events.provenance(self._context.instance, self._lineages[name])


def add_assets_of(instance: dg.DagsterInstance, source: SourceResource) -> str:
    """Add a partition for each new symbol of the source; returns a sentence on what was added."""
    usable, left_out = usable_symbols(source.source().symbols())
    new = register_partitions(instance, usable)
    parts = [f"added {', '.join(new)}" if new else "no new symbol in the bar source"]
    parts += [f"left out: {sentence}" for sentence in left_out[:_MOST_NAMED]]
    if len(left_out) > _MOST_NAMED:
        parts.append(f"and {len(left_out) - _MOST_NAMED} more like it")
    return "; ".join(parts)


@dg.op(
    out=dg.Out(dg.Nothing),
    description="Adds a Dagster partition for each new symbol of the bar source.",
)
def add_source_assets(context: dg.OpExecutionContext, source: SourceResource) -> None:
    context.log.info(add_assets_of(context.instance, source))


class SpecConfig(dg.Config):
    """The spec to execute."""

    spec: dict[str, Any] = Field(
        description="fields of a RunSpec, WalkForwardSpec, SweepSpec, PortfolioSpec or "
        "CrossSectionSpec, including `kind` (run, walkforward, optimize, portfolio or "
        "cross_section)"
    )


@dg.op(out=dg.Out(dg.Nothing), description="Executes a spec and attaches its result as metadata.")
def execute_spec(
    context: dg.OpExecutionContext, config: SpecConfig, store: WorkspaceResource
) -> None:
    result = execute(store.workspace, load_settings(), spec_of(config.spec))
    context.add_output_metadata({"result": dg.MetadataValue.json(result.model_dump(mode="json"))})
