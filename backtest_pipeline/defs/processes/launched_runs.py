"""Dagster runs that were launched for requested jobs, identified by their tags."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import dagster as dg

from backtest_pipeline.pipeline.jobs.requests import Ended, Launched
from backtest_pipeline.storage.tables.job_queue import Attempt

JOB_TAG, ATTEMPT_TAG = "backtest/job", "backtest/attempt"
# Dagster terminates a run that is still going this long after the job's own timeout.
_GRACE_S = 120
_GONE = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS)


def run_request(attempt: Attempt) -> dg.RunRequest:
    """A run of the job `requested` for this attempt."""
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
