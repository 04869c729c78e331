"""Launches runs as Dagster's own launcher does, and notices when one is no longer there.

Dagster's default launcher is told of a run's end by the code server that started it. Where both die
together, the run counts as under way until its time is over, and keeps its place in the queue.

What it builds on that Dagster has not made public: the types of its health check, the tag that says
which code server started a run, and the process number in its engine events. What is gained by it,
and when it can go: docs/adr/0001-private-dagster.md.
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
        """Whether the process that executes the run is there.

        A run is not judged that no code server of this machine started, or that has not named
        its process.
        """
        processes = self._processes_of(run.run_id) if _is_of_this_machine(run) else []
        if not processes or any(_lives(pid, since) for pid, since in processes):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        named = ", ".join(str(pid) for pid, _ in processes)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process {named} is gone")

    def _processes_of(self, run_id: str) -> list[tuple[int, float]]:
        """Numbers of the processes that said they execute the run, and when each said so."""
        found: dict[int, float] = {}
        for entry in self._instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
            pid = entry.get_dagster_event().engine_event_data.metadata.get("pid")
            if pid is not None:
                found.setdefault(int(str(pid.value)), entry.timestamp)
        return list(found.items())


def _is_of_this_machine(run: DagsterRun) -> bool:
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    return "socket" in server or server.get("host") in _HERE


def _lives(pid: int, instant: float) -> bool:
    """Whether a process is at work since before an instant: numbers are reused."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= instant and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
