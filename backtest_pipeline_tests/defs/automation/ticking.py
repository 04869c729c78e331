"""Ticks of the schedules as Dagster's daemon makes them, and the runs that they request."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.resources import (
    SimulationResource,
    SourceResource,
    WorkspaceResource,
)
from backtest_pipeline_tests.defs.running import QUIET


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def tick(
    instance: dg.DagsterInstance, schedule: dg.ScheduleDefinition, when: datetime
) -> dg.RunRequest | str:
    """The request of a tick, or why it was skipped."""
    resources: Mapping[str, Any] = {
        "store": WorkspaceResource(),
        "source": SourceResource(),
        "simulation": SimulationResource(),
    }
    with (
        dg.build_schedule_context(scheduled_execution_time=when, resources=resources) as context,
        pytest.MonkeyPatch.context() as of_memory,
    ):
        # Dagster takes no instance in memory for a schedule, and one on disk costs a test seconds.
        of_memory.setattr(dg.ScheduleEvaluationContext, "instance", instance)
        result = schedule.evaluate_tick(context)
    if not result.run_requests:
        return result.skip_message or ""
    (request,) = result.run_requests
    return request


def launched(
    instance: dg.DagsterInstance,
    request: dg.RunRequest,
    job: dg.JobDefinition | None = None,
) -> dg.ExecuteInProcessResult | None:
    """The run of a request; None where its key has had one already."""
    tags = {**request.tags, "dagster/run_key": str(request.run_key)}
    if instance.get_runs_count(dg.RunsFilter(tags={"dagster/run_key": str(request.run_key)})):
        return None
    definition = job or build_definitions().resolve_job_def("refresh")
    return definition.execute_in_process(
        {**QUIET, **request.run_config}, instance=instance, tags=tags, raise_on_error=False
    )
