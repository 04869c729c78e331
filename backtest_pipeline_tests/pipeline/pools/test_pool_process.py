"""What is left of worker processes when the process that started them is gone, or is no program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.pipeline.pools.universes import WorkedStore, worked_store
from backtest_pipeline_tests.waiting import LIMIT_S, until

SCRIPT = """
import sys
from pathlib import Path

from backtest_pipeline.pipeline.pools.work_pool import PoolWork, done
from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline_tests.pipeline.pools.tasks import long_statement, nothing_here, own_pid


def main():
    with open_workspace() as workspace:
        pid = workspace.pool.do(PoolWork("test", nothing_here, own_pid), None)
        print(pid, flush=True)
        work = PoolWork("test", nothing_here, long_statement)
        list(done(workspace.pool, work, [Path(sys.argv[1])]))

"""
ROOT = Path(__file__).parents[3]
GUARD = 'if __name__ == "__main__":\n    '


@pytest.fixture
def store(template: Database, tmp_path: Path) -> Iterator[WorkedStore]:
    yield from worked_store(template, tmp_path / "store")


@contextmanager
def running(
    folder: Path, environment: Mapping[str, str], *, guard: str = GUARD
) -> Iterator[subprocess.Popen[str]]:
    """The script, with one worker."""
    script = folder / "script.py"
    script.write_text(f"{SCRIPT}\n{guard}main()\n")
    given = {
        "BACKTEST_POOL": "processes",
        "BACKTEST_POOL_WORKERS": "1",
        "PYTHONPATH": str(ROOT),  # a script has its own folder there
    }
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder / "woken")],
        env={**os.environ, **environment, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def postmaster(home: Path) -> int:
    """The server of a home; 0 where it has none."""
    pid_file = home / "postgres" / "data" / "postmaster.pid"
    try:
        return int(pid_file.read_text().split("\n", 1)[0])
    except FileNotFoundError:
        return 0


@pytest.fixture(scope="module")
def own_home(open_folder: Path) -> Path:
    """Of an embedded server that is used by the script alone."""
    return open_folder / "parents"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_outlives_a_parent_that_is_ended(own_home: Path, tmp_path: Path, how: int) -> None:
    with running(tmp_path, {"BACKTEST_HOME": str(own_home)}) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        pid = int(line)
        family = psutil.Process(process.pid).children(recursive=True)
        server = postmaster(own_home)
        assert pid in {one.pid for one in family}
        assert psutil.pid_exists(server)
        process.send_signal(how)
        assert process.wait(LIMIT_S) == -how
        _, alive = psutil.wait_procs(family, timeout=LIMIT_S)
        assert not alive
        until(lambda: not psutil.pid_exists(server))


def test_a_script_that_would_start_itself_is_refused_with_a_hint(
    store: WorkedStore, tmp_path: Path
) -> None:
    with running(tmp_path, store.environment(), guard="") as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert out == ""
    assert 'put what it does below `if __name__ == "__main__":`' in err
    assert "PoolUnavailable: a worker process of this host does not start" in err
