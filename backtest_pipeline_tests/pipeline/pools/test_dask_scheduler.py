"""Workers that would compute something else are not let in by the scheduler."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Scheduler

from backtest_pipeline.pipeline.pools import dask_scheduler
from backtest_pipeline.pipeline.pools.tls import environment_of
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.sessions import WORKER_TTL_S
from backtest_pipeline_tests.pipeline.pools.clusters import running_cluster
from backtest_pipeline_tests.pipeline.pools.universes import WorkedStore, worked_store
from backtest_pipeline_tests.process_state import PACKAGE
from backtest_pipeline_tests.waiting import until


@pytest.fixture
def store(template: Database, tmp_path: Path) -> Iterator[WorkedStore]:
    yield from worked_store(template, tmp_path / "store")


@pytest.mark.parametrize("given", [None, 300])
def test_it_gives_up_workers_that_do_not_answer_however_it_was_started(
    monkeypatch: pytest.MonkeyPatch, given: float | None
) -> None:
    ttl = "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"
    monkeypatch.delenv(ttl, raising=False)
    if given:
        monkeypatch.setenv(ttl, f"{given}s")

    async def started() -> tuple[int | None, float | None, float]:
        here = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
        async with Scheduler(
            worker_ttl=given, preload=[dask_scheduler.__name__], **here
        ) as scheduler:
            looking = scheduler.periodic_callbacks["worker-ttl"].callback_time
            return scheduler.allowed_failures, scheduler.worker_ttl, looking / 1_000

    seconds = given or WORKER_TTL_S
    assert asyncio.run(started()) == (dask_scheduler.ALLOWED_FAILURES, seconds, seconds)


@pytest.mark.slow
def test_workers_that_would_compute_something_else_are_refused(
    store: WorkedStore, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for part in (PACKAGE, PACKAGE.parent / "sql"):
        shutil.copytree(part, other / part.name)
    with (other / PACKAGE.name / "simulation" / "engine.py").open("a") as engine:
        engine.write("# one line more\n")
    with running_cluster(tmp_path, store.environment(), workers=0) as cluster:
        address, log = cluster.environment["BACKTEST_POOL_ADDRESS"], cluster.scheduler.log
        plain = (sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard")
        cluster.work(plain, again=True, **environment_of(address, tmp_path / "tls"))
        cluster.work(PWD=str(other))
        whys = ("it was not started with --preload", r"code is \S+ here and \S+ there: give")
        refused = [re.compile(f"is refused: {why}") for why in whys]
        until(lambda: all(one.search(log.read_text()) for one in refused), cluster.told)
        found = cluster.status()
        assert found.returncode != 0
        assert "has no workers" in found.stderr
        assert cluster.stop() == []
