"""Launches runs as Dagster's own launcher does, and notices when a run's process is gone.

The code server that started a run reports its end to Dagster's default launcher. If both die
together, the run counts as running until it times out, and keeps occupying a queue slot.

It uses these private parts of Dagster: the types of its health check, the tag that names the code
server of a run, and the process id in its engine events. For the reasons, and when this can be
removed, see docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

import json

import psutil
from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

_HERE = ("localhost", "127.0.0.1", "::1")


class SupervisedRunLauncher(DefaultRunLauncher):
    """The default launcher, with a health check for run monitoring."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process that executes the run is still alive.

        A run counts as alive if a code server on another machine started it, or if it has not
        reported its process id yet.
        """
        processes = self._processes_of(run.run_id) if _is_of_this_machine(run) else []
        if not processes or any(_lives(pid, since) for pid, since in processes):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        named = ", ".join(str(pid) for pid, _ in processes)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"the process of this run ({named}) is gone"
        )

    def _processes_of(self, run_id: str) -> list[tuple[int, float]]:
        """Ids of the processes that reported executing the run, with the time of each report."""
        first_report: dict[int, float] = {}
        for entry in self._instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
            pid = entry.get_dagster_event().engine_event_data.metadata.get("pid")
            if pid is not None:
                first_report.setdefault(int(str(pid.value)), entry.timestamp)
        return list(first_report.items())


def _is_of_this_machine(run: DagsterRun) -> bool:
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    return "socket" in server or server.get("host") in _HERE


def _lives(pid: int, instant: float) -> bool:
    """Whether a process that started before `instant` is alive; process ids are reused."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= instant and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
