"""Workers that would compute something else are not let in by the scheduler."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import backtest_pipeline
from backtest_pipeline.pipeline.pools.tls import environment_of
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.pipeline.pools.clusters import running_cluster
from backtest_pipeline_tests.pipeline.pools.universes import WorkedStore, worked_store
from backtest_pipeline_tests.waiting import until


@pytest.fixture
def store(template: Database, tmp_path: Path) -> Iterator[WorkedStore]:
    yield from worked_store(template, tmp_path / "store")


def other_code(folder: Path) -> Path:
    """A folder with a copy of the package, one line of which is another."""
    package = folder / "backtest_pipeline"
    source = Path(backtest_pipeline.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "market" / "resample.py").open("a") as changed:
        changed.write("\n_OTHER = 1\n")
    return folder


@pytest.mark.slow
def test_other_code_and_workers_that_do_not_say_theirs_are_refused(
    store: WorkedStore, tmp_path: Path
) -> None:
    with running_cluster(tmp_path, store.environment(), workers=0) as cluster:
        address = cluster.environment["BACKTEST_POOL_ADDRESS"]
        plain = (sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard")
        cluster.work(plain, **environment_of(address, tmp_path / "tls"))
        folder = other_code(tmp_path / "other")
        # Its code is at another place, where nothing is compiled.
        where = {"PYTHONPATH": str(folder), "PWD": str(folder), "NUMBA_DISABLE_JIT": "1"}
        cluster.work(**where)
        log = cluster.scheduler.log
        until(lambda: "is refused: it was not started with --preload" in log.read_text())
        until(lambda: "is refused: code is " in log.read_text(), cluster.told)
        assert "there: give scheduler and workers the same image" in log.read_text()
        until(lambda: "is refused: code is " in cluster.workers[1].log.read_text(), cluster.told)
        found = cluster.status()
        assert found.returncode != 0
        assert "has no workers" in found.stderr
        assert cluster.stop() == []
