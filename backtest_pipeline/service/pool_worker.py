"""Code of a warm worker process: executes one spec after the other, each to a result as JSON.

It returns bytes or a `Failure`, never an exception: a pickled exception carries along everything it
refers to, and unpickling it runs code.
"""

from __future__ import annotations

import gc
import logging
import os
from contextlib import ExitStack
from enum import StrEnum
from multiprocessing import parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Annotated

from pydantic import Field, TypeAdapter
from threadpoolctl import threadpool_limits

from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.jobs.requests import require_sound_job
from backtest_pipeline.pipeline.specs import ExecutableSpec, JobSpec
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.service.problems import Failure, failure_of
from backtest_pipeline.storage.logs import about, set_up_logging
from backtest_pipeline.storage.settings import Settings

_log = logging.getLogger(__name__)
_specs: TypeAdapter[ExecutableSpec] = TypeAdapter(
    Annotated[ExecutableSpec, Field(discriminator="kind")]
)


class _Store:
    """The store of this process: opened on first use, and retried if that fails."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self._opened = settings, ExitStack()
        self._workspace: Workspace | None = None

    def workspace(self) -> Workspace:
        if self._workspace is None:
            self._workspace = self._opened.enter_context(open_workspace(self.settings))
        return self._workspace


_store: _Store | None = None


def begin(settings: Settings) -> None:
    """Initialise this process as a worker that exits with its parent."""
    global _store
    set_up_logging("json", logging.INFO)
    # There is a worker per core: BLAS threads would only compete with each other.
    threadpool_limits(1)
    _store = _Store(settings)
    Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def warm() -> None:
    """Open the store and compute something small, so that the first request is fast."""
    from backtest_pipeline.service import warm

    assert warm  # noqa: S101 - importing it is what warms
    with _opened().workspace().database.arrow():
        pass  # its driver takes longest to open
    gc.freeze()  # what is loaded by now stays for good: it need not be looked through each time


class WorkerTask(StrEnum):
    """What a worker does with a spec."""

    EXECUTE = "execute"
    CHECK_JOB = "check a job"


def _execute(store: _Store, spec: str, user: str) -> bytes:
    result = execute(store.workspace(), store.settings, _specs.validate_json(spec), user)
    return result.model_dump_json().encode()


def _check_job(store: _Store, spec: str, _user: str) -> bytes:
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
            return _DONE_BY[task](_opened(), spec, user)
        except Exception as error:  # whatever it is, it ends this request and no other
            failure = failure_of(error)
            if failure.problem().kind.status >= 500:
                _log.exception("a request was not computed")
            return failure


def _opened() -> _Store:
    assert _store is not None, "a worker begins before it executes"  # noqa: S101
    return _store


def _end_with_parent() -> None:
    """Exit with the server: a killed one would leave workers behind that hold port and store."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
