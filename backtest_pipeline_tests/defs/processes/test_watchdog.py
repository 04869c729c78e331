"""Processes end with the one that started them, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from backtest_pipeline.defs.processes.watchdog import process_group
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.pipeline.processes import started
from backtest_pipeline_tests.waiting import LIMIT_S, until

# A process with a child of its own; both would go on for minutes.
_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def environment_of(database: Database) -> dict[str, str]:
    return {
        **os.environ,
        "BACKTEST_RUN_STORE_MODE": "postgres",
        "BACKTEST_POSTGRES_DSN": database.conninfo,
    }


def run_for_ever(environment: dict[str, str], folder: Path, told: Path) -> None:
    with process_group(environment, folder) as group:
        child = group.start([sys.executable, "-c", _PARENT])
        until(lambda: len(psutil.Process(child.pid).children()) == 1)
        (grandchild,) = psutil.Process(child.pid).children()
        whole = told.with_suffix(".partial")
        whole.write_text(f"{group.watchdog.pid} {child.pid} {grandchild.pid}")
        whole.replace(told)
        threading.Event().wait()


def test_nothing_of_a_killed_process_stays(database: Database, tmp_path: Path) -> None:
    folder, told = tmp_path / "folder", tmp_path / "pids"
    folder.mkdir()
    process = started(run_for_ever, environment_of(database), folder, told)
    until(told.exists)
    tree = [psutil.Process(int(pid)) for pid in told.read_text().split()]
    process.kill()
    process.join()
    _, alive = psutil.wait_procs(tree, timeout=LIMIT_S)
    assert alive == []
    assert not folder.exists()


def test_all_have_ended_at_the_end_of_the_block(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with process_group(environment_of(database), folder) as group:
        child = group.start([sys.executable, "-c", "import time; time.sleep(600)"])
    assert not folder.exists()
    assert child.wait(LIMIT_S) < 0
    assert group.watchdog.returncode == 0


def test_a_watchdog_that_was_killed_itself_leaves_nothing_either(
    database: Database, tmp_path: Path
) -> None:
    with process_group(environment_of(database), tmp_path / "folder") as group:
        child: subprocess.Popen[bytes] = group.start([sys.executable, "-c", _PARENT])
        until(lambda: len(psutil.Process(child.pid).children()) == 1)
        (grandchild,) = psutil.Process(child.pid).children()
        group.watchdog.kill()
        group.watchdog.wait(LIMIT_S)
    assert child.wait(LIMIT_S) < 0
    grandchild.wait(LIMIT_S)
