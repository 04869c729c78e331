"""`backtest-pipeline up` on a store of its own, and what its processes and runs are like."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from backtest_pipeline.defs.automation.switches import switch
from backtest_pipeline.defs.automation.table import AUTOMATIONS
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START
from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.postgres.embedded import embedded_server
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.ports import free_port
from backtest_pipeline_tests.waiting import LIMIT_S, until

CODE_SERVER, WEBSERVER, DAEMON, WATCHDOG = "api grpc", "webserver", "dagster-daemon", "watchdog"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
_HEALTH = """{
  workspaceOrError { ... on Workspace {
    locationEntries { updatedTimestamp locationOrLoadError { __typename } } } }
  instance { daemonHealth { allDaemonStatuses { required lastHeartbeatTime } } }
}"""
_LAUNCH = """mutation ($job: String!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: {
      repositoryLocationName: "backtest_pipeline", repositoryName: "__repository__", jobName: $job}
    runConfigData: {}, executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}"""
_TERMINATE = """mutation ($id: String!) {
  terminateRun(runId: $id) { __typename ... on PythonError { message } }
}"""
_STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def arguments(process: psutil.Process) -> str:
    """What the list of processes shows of one; nothing where it has ended since."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@dataclass(frozen=True)
class RunningUp:
    """The command, and the home of its store."""

    process: psutil.Process
    home: Path
    url: str
    log: Path

    @property
    def first_page(self) -> str:
        """The address that it printed, with the token."""
        (found,) = re.findall(r"http://\S+", self.log.read_text().split("(Ctrl-C")[0])
        return str(found)

    def graphql(self, query: str, **variables: Any) -> Mapping[str, Any]:
        """What the webserver answers."""
        token = self.first_page.rpartition("=")[2]
        response = httpx2.post(
            f"{self.url}/graphql",
            json={"query": query, "variables": variables},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def is_well(self, since: float, loaded_since: float = 0.0) -> bool:
        """Whether the code location can be used, and the daemon has lived since an instant.

        For some seconds the webserver takes a code server that is gone for one that is there: where
        it was killed, the location must have been loaded since then.
        """
        try:
            found = self.graphql(_HEALTH)
        except httpx2.TransportError:
            return False
        (entry,) = found["workspaceOrError"]["locationEntries"]
        daemons = [
            daemon["lastHeartbeatTime"] or 0.0
            for daemon in found["instance"]["daemonHealth"]["allDaemonStatuses"]
            if daemon["required"]
        ]
        location = entry["locationOrLoadError"] or {}
        is_loaded = location.get("__typename") == "RepositoryLocation"
        return is_loaded and entry["updatedTimestamp"] > loaded_since and min(daemons) > since

    def child(self, kind: str) -> psutil.Process:
        """The one of its own processes that is of a kind."""
        (found,) = [child for child in self.process.children() if kind in arguments(child)]
        return found

    def tree(self) -> list[psutil.Process]:
        """The command and all processes below it."""
        return [self.process, *self.process.children(recursive=True)]

    def launch_refresh(self, partition: str, last: str = "") -> str:
        """The id of a run of the job `refresh`, as the UI launches it.

        It is of one partition, or of a range to a last one.
        """
        ends = {RANGE_START: partition, RANGE_END: last or partition}
        tags = [{"key": key, "value": value} for key, value in ends.items()]
        answer = self.graphql(_LAUNCH, job="refresh", tags=tags)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def terminate(self, run_id: str) -> None:
        """Cancel a run, as the UI does."""
        answer = self.graphql(_TERMINATE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def status(self, run_id: str) -> str:
        """A run's status, as the UI shows it."""
        return str(self.graphql(_STATUS, id=run_id)["runOrError"]["status"])

    def wait_for(self, run_id: str, status: str) -> None:
        """Return when a run has ended; it must have ended so."""
        until(lambda: self.status(run_id) in ENDED, self.log.read_text)
        assert self.status(run_id) == status


def _turn_off_schedules(home: Path) -> None:
    """What a test does not launch must not run in the middle of it, whatever time it is."""
    settings = load_settings(run_store_mode="embedded", home=home)
    with (
        closing(open_database(settings)) as database,
        open_instance(settings, database) as instance,
    ):
        for row in AUTOMATIONS:
            if row.is_schedule or row.name == "portfolio_rollups_after_backtests":
                switch(instance, row, on=False)
    embedded_server(home).release()


@contextmanager
def running_up(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[RunningUp]:
    """The command in a folder, started, its webserver answering; killed if it is still there."""
    home, log, port = folder / "home", folder / "up.log", free_port()
    without = {k: v for k, v in os.environ.items() if not k.startswith(("BACKTEST_", "DAGSTER"))}
    with log.open("w") as written:
        process = psutil.Popen(
            [sys.executable, "-m", "backtest_pipeline.cli.main", "up", "--port", str(port)],
            env={**without, "BACKTEST_HOME": str(home), **(environment or {})},
            stdout=written,
            stderr=written,
        )
    up = RunningUp(process, home, f"http://127.0.0.1:{port}", log)
    try:
        until(lambda: process.poll() is not None or "?token=" in log.read_text(), log.read_text)
        assert process.poll() is None, log.read_text()[-3000:]
        until(lambda: up.is_well(0), log.read_text)
        _turn_off_schedules(home)
        yield up
    finally:
        tree = up.tree() if process.is_running() else []
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        psutil.wait_procs(tree, timeout=LIMIT_S)
