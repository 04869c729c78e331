"""Processes that replay: they end with whoever wants the replay, and when nobody wants it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import psutil
import pytest

from backtest_pipeline.market.errors import WorkGivenUp
from backtest_pipeline.pipeline.replay.worker_process import WITH_PARENT, recompute
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import code_on_disk
from backtest_pipeline_tests.waiting import until

STARTS_ONE = """
import os, subprocess, sys
from backtest_pipeline.pipeline.replay.worker_process import WITH_PARENT

program = WITH_PARENT.format(parent=os.getpid(), module="sleeper")
print(subprocess.Popen([sys.executable, "-P", "-c", program]).pid, flush=True)
sys.stdin.read()
"""


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    path = os.pathsep.join(
        [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH"), *sys.path])]
    )
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        replaying = psutil.Process(int(process.stdout.readline()))
        assert replaying.is_running()
        process.send_signal(signal.SIGKILL)
    until(lambda: not replaying.is_running() or replaying.status() == psutil.STATUS_ZOMBIE)


def test_a_module_is_run_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text("print(__name__, input())\n")
    program = WITH_PARENT.format(parent=os.getpid(), module="told")
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        input="something",
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "__main__ something\n"


def test_what_is_given_up_is_not_waited_for(tmp_path: Path) -> None:
    given_up = Event()
    given_up.set()
    with pytest.raises(WorkGivenUp):
        recompute(ArtifactStore(tmp_path), code_on_disk().uri, [], given_up=given_up)
    of_replays = [p for p in psutil.Process().children() if "run_module" in " ".join(p.cmdline())]
    assert of_replays == []
