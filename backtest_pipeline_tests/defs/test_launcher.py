"""A run that died together with its code server does not count as under way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from backtest_pipeline.defs.processes.instance_file import DAGSTER_YAML
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.ports import free_port
from backtest_pipeline_tests.waiting import LIMIT_S, until

# The run outlives the test unless it is killed; nothing waits for it.
LOCATION = """
import time
import dagster as dg

@dg.op
def wait():
    time.sleep(600)

@dg.job(executor_def=dg.in_process_executor)
def waiting():
    wait()
"""


@pytest.fixture
def environment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """That of Dagster's processes, on our own instance but that runs do not wait for a daemon."""
    home = tmp_path / "instance"
    home.mkdir()
    coordinator = (
        "run_coordinator: { module: dagster.core.run_coordinator, class: DefaultRunCoordinator }\n"
    )
    before, queue, after = re.split(
        r"(^concurrency:\n(?: .*\n)+run_queue:\n(?: .*\n)+)", DAGSTER_YAML, flags=re.M
    )
    assert "tag_concurrency_limits" in queue
    (home / "dagster.yaml").write_text(before + coordinator + after)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", database.conninfo)
    return dict(os.environ)


@contextmanager
def code_server(folder: Path, environment: dict[str, str]) -> Iterator[psutil.Process]:
    """A code server of Dagster's, and a file `workspace.yaml` that names it."""
    port = free_port()
    (folder / "location.py").write_text(LOCATION)
    server = {"host": "127.0.0.1", "port": port, "location_name": "one"}
    (folder / "workspace.yaml").write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    process = psutil.Popen(
        [
            *(sys.executable, "-m", "dagster", "api", "grpc", "-f", "location.py"),
            *("-h", "127.0.0.1", "-p", str(port)),
        ],
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        kill(process)


def kill(server: psutil.Process) -> None:
    """The server and the runs that it holds, at once, as a machine that crashes does."""
    if server.is_running():
        tree = [server, *server.children(recursive=True)]
        for one in tree:
            one.kill()
        psutil.wait_procs(tree, timeout=LIMIT_S)


def launched(instance: dg.DagsterInstance, folder: Path, environment: dict[str, str]) -> str:
    """The id of a run that is at work."""
    command = (*("-m", "dagster", "job", "launch"), "-w", "workspace.yaml", "-j", "waiting")

    def is_launched() -> bool:
        asked = [sys.executable, *command]
        found = subprocess.run(asked, env=environment, cwd=folder, capture_output=True, check=False)
        return found.returncode == 0

    until(is_launched, lambda: "the code server does not answer")
    at_work = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    until(lambda: instance.get_runs(at_work), lambda: "the run does not start")
    return instance.get_runs(at_work)[0].run_id


def test_a_run_is_there_while_its_process_is(environment: dict[str, str], tmp_path: Path) -> None:
    """What is private of Dagster still works: a version where it does not fails here."""
    with dg.DagsterInstance.get() as instance, code_server(tmp_path, environment) as server:
        launcher = instance.run_launcher
        assert launcher.supports_check_run_worker_health
        run = instance.get_run_by_id(launched(instance, tmp_path, environment))
        assert run is not None
        assert launcher.check_run_worker_health(run).status.value == "RUNNING"
        kill(server)
        dead = launcher.check_run_worker_health(run)
        assert dead.status.value == "FAILED"
        assert dead.msg is not None
        assert dead.msg.endswith("is gone")
        elsewhere = run.with_tags({".dagster/grpc_info": '{"host": "other.example", "port": 1}'})
        assert launcher.check_run_worker_health(elsewhere).status.value == "RUNNING"
        by_hand = run.with_tags({})
        assert launcher.check_run_worker_health(by_hand).status.value == "RUNNING"
