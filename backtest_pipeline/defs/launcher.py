"""Launches runs as Dagster's own launcher does, and notices when one is no longer there.

Dagster's default launcher is told of a run's end by the code server that holds it. Where that dies
with the run, the run counts as under way for ever, and keeps its place in the queue.
"""

from typing import Any

import psutil
from dagster import DagsterEventType, DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

_PATIENCE_S = 20


class SupervisedRunLauncher(DefaultRunLauncher):
    """The default launcher, with a health check for run monitoring."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's code server still has the run, or its process outlives that server.

        A run that no code server was given (one of the command line) is not judged.
        """
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None or self._has_it(client, run.run_id) or self._lives(run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, "its process is gone, and its code server does not have it"
        )

    @staticmethod
    def _has_it(client: Any, run_id: str) -> bool:
        from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
        from dagster._serdes import deserialize_value

        try:
            answer = client.can_cancel_execution(
                CanCancelExecutionRequest(run_id=run_id), timeout=_PATIENCE_S
            )
        except DagsterUserCodeUnreachableError:
            return False  # the server is gone; the run may have outlived it
        return deserialize_value(answer, CanCancelExecutionResult).can_cancel

    def _lives(self, run_id: str) -> bool:
        """Whether a process that said it executes the run is still there."""
        for entry in self._instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
            if entry.dagster_event is None:
                continue
            pid = entry.dagster_event.engine_event_data.metadata.get("pid")
            if pid is not None and _is_older(int(str(pid.value)), entry.timestamp):
                return True
        return False


def _is_older(pid: int, instant: float) -> bool:
    """Whether a process of this number is there since before an instant: numbers are reused."""
    try:
        return psutil.Process(pid).create_time() <= instant
    except psutil.NoSuchProcess:
        return False
