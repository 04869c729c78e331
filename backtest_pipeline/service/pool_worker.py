"""Code of a warm worker process: executes one spec after the other, each to a result as JSON.

It returns bytes or a `Failure`, never an exception: a pickled exception carries along everything it
refers to, and unpickling it runs code.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Annotated

from pydantic import Field, TypeAdapter

from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.jobs.requests import require_sound_job
from backtest_pipeline.pipeline.pools.pool_process import WorkerStore, worker_store
from backtest_pipeline.pipeline.specs import ExecutableSpec, JobSpec
from backtest_pipeline.service.problems import Failure, failure_of
from backtest_pipeline.storage.logs import about

_log = logging.getLogger(__name__)
_specs: TypeAdapter[ExecutableSpec] = TypeAdapter(
    Annotated[ExecutableSpec, Field(discriminator="kind")]
)


class WorkerTask(StrEnum):
    """What a worker does with a spec."""

    EXECUTE = "execute"
    CHECK_JOB = "check a job"


def _execute(store: WorkerStore, spec: str, user: str) -> bytes:
    result = execute(store.workspace(), store.settings, _specs.validate_json(spec), user)
    return result.model_dump_json().encode()


def _check_job(store: WorkerStore, spec: str, _user: str) -> bytes:
    job = JobSpec.model_validate_json(spec)
    require_sound_job(job, store.settings.optimizer_max_combinations)
    return b""


_DONE_BY = {WorkerTask.EXECUTE: _execute, WorkerTask.CHECK_JOB: _check_job}


def execute_json(task: WorkerTask, spec: str, user: str, request_id: str) -> bytes | Failure:
    """Do a task with one spec.

    Args:
        task: the task.
        spec: the spec as JSON; with its kind, where it is to be executed.
        user: name of the user.
        request_id: the request id, for the log.

    Returns:
        The result as JSON (nothing of a check), or the failure.
    """
    with about(request=request_id):
        try:
            return _DONE_BY[task](worker_store(), spec, user)
        except Exception as error:  # whatever it is, it ends this request and no other
            failure = failure_of(error)
            if failure.problem().kind.status >= 500:
                _log.exception("a request was not computed")
            return failure
