"""Launches runs as Dagster's own launcher does, and notices when a run's process is gone.

The code server that started a run reports its end to Dagster's default launcher. If both die
together, the run counts as running until it times out, and keeps occupying a queue slot. On this
machine the process is looked for; on another one the run has a lease (`leased_runs.py`), which is
taken here, as it may die before it takes one itself.

It uses these private parts of Dagster: the types of its health check, the tag that names the code
server of a run, and the process id in its engine events. For the reasons, and when this can be
removed, see docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

import json

import psutil
from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from backtest_pipeline.storage.dagster_run_leases import release_lease, take_lease
from backtest_pipeline.storage.postgres.migrations import opened
from backtest_pipeline.storage.settings import load_settings

LAUNCHED = "dagster launcher"
"""The command in the lease of a run that was launched on another machine."""
_START_S = 180.0  # as `start_timeout_seconds` of the instance
_HERE = ("localhost", "127.0.0.1", "::1")


class SupervisedRunLauncher(DefaultRunLauncher):
    """The default launcher, with a health check for run monitoring."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run; on another machine it is leased until it leases itself."""
        run = context.dagster_run
        origin = run.remote_job_origin
        server = origin and origin.repository_origin.code_location_origin
        host = getattr(server, "host", None)
        if host is None or getattr(server, "socket", None) or host in _HERE:
            super().launch_run(context)
            return
        with opened(load_settings()) as database:
            with database.begin() as connection:
                take_lease(connection, run.run_id, LAUNCHED, f"code server on {host}", _START_S)
            try:
                super().launch_run(context)
            except Exception:
                with database.begin() as connection:
                    release_lease(connection, run.run_id)
                raise

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process that executes the run is still alive.

        A run counts as alive if a code server on another machine started it, or if it has not
        reported its process id yet.
        """
        is_of_this_machine = GRPC_INFO_TAG in run.tags and not launched_elsewhere(run)
        processes = self._processes_of(run.run_id) if is_of_this_machine else []
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


def launched_elsewhere(run: DagsterRun) -> bool:
    """Whether a code server started the run that is on another machine than the launcher."""
    if GRPC_INFO_TAG not in run.tags:
        return False
    server = json.loads(run.tags[GRPC_INFO_TAG])
    return "socket" not in server and server.get("host") not in _HERE


def _lives(pid: int, instant: float) -> bool:
    """Whether a process that started before `instant` is alive; process ids are reused."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= instant and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
