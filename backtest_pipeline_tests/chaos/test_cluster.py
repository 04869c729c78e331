"""Whatever of a pool dies or freezes in a refresh: the store is as one process leaves it.

Two markets of the same assets take turns, so that what was not written would show.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.strategies.known_strategies import use_folder
from backtest_pipeline_tests.chaos.harness import Judge, Tally, random_of
from backtest_pipeline_tests.chaos.servers import Server
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import (
    StaticSource,
    contents,
    daily_panel,
    refresh,
)
from backtest_pipeline_tests.pipeline.pools.clusters import (
    Faults,
    RunningCluster,
    running_cluster,
    wait_for_workers,
)
from backtest_pipeline_tests.running_up import arguments
from backtest_pipeline_tests.waiting import LIMIT_S

ASSETS = tuple(f"U{number:02}" for number in range(16))
PARTITIONS = [Partition(asset, tf) for tf in ("1D", "2D", "3D", "1W") for asset in ASSETS]
MARKETS = [
    StaticSource({"1D": daily_panel(dict.fromkeys(ASSETS, 1_100), seed=seed)}) for seed in (5, 6)
]
TTL_S = 8
"""After this time a frozen worker of these tests is given up."""

Fault = Callable[[], object]


@pytest.fixture(scope="module")
def wide_judge(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """What undisturbed refreshes of these markets leave."""
    with ExitStack() as stack:
        found = []
        for source in MARKETS:
            database = stack.enter_context(contextmanager(database_like)(template, "backtest"))
            workspace = Workspace(database, ArtifactStore(tmp_path_factory.mktemp("undisturbed")))
            refresh(workspace, source, PARTITIONS)
            found.append(contents(workspace))
        yield Judge(tuple(found))


def disturbed(
    server: Server,
    judge: Judge,
    workspace: Workspace,
    faults: Faults,
    kinds: dict[str, Fault],
    times: int,
) -> None:
    """Refresh the markets in turns, each time with two faults at random signs of progress."""
    rng, tally = random_of(", ".join(kinds)), Tally()
    steps = 0
    for n in range(times + 1):
        before = faults.steps
        # Each kind comes up; the second is at random, so that they meet.
        chosen = [list(kinds)[(n - 1) % len(kinds)], str(rng.choice(list(kinds)))] if n else []
        for name in chosen:
            faults.plan(int(rng.integers(1, steps + 1)), name, kinds[name])
            tally.add(name)
        reports = refresh(workspace, MARKETS[n % 2], PARTITIONS)
        assert not any(report.failed for report in reports.values()), chosen
        steps = steps or faults.steps - before
        judge.require_done(server.workspace, n % 2)
    assert len(faults.happened) == 2 * times
    print(tally.told())  # noqa: T201


def one_of(rng: np.random.Generator, processes: list[psutil.Process]) -> psutil.Process:
    return processes[int(rng.integers(len(processes)))]


def faults_of(cluster: RunningCluster, server: Server) -> dict[str, Fault]:
    rng = random_of("which worker")

    def frozen() -> None:
        one_of(rng, cluster.computing()).send_signal(signal.SIGSTOP)

    return {
        "worker killed": lambda: one_of(rng, cluster.computing()).kill(),
        "worker frozen": frozen,
        "scheduler restarted": cluster.restart_scheduler,
        "workers and what looks after them killed": lambda: [
            process.kill() for process in cluster.workers[0].tree()
        ],
        "Postgres gone for 10 s": lambda: server.stop_for(10),
        "Postgres restarted": lambda: server.restart("immediate"),
    }


@pytest.mark.chaos
def test_a_refresh_outlasts_whatever_happens_to_its_cluster(
    server: Server, wide_judge: Judge, tmp_path: Path
) -> None:
    faults = Faults()
    ttl = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{TTL_S}s"}
    environment = server.environment(embedded=False)
    with running_cluster(tmp_path, environment, workers=4, **ttl) as cluster:
        with opened(cluster.environment, faults) as workspace:
            wait_for_workers(cluster, lambda: workspace.pool.size, 4)
            kinds = faults_of(cluster, server)
            disturbed(server, wide_judge, workspace, faults, kinds, times=2 * len(kinds))
        assert cluster.stop() == []


@pytest.mark.chaos
def test_a_refresh_outlasts_whatever_happens_to_its_processes(
    server: Server, wide_judge: Judge
) -> None:
    rng = random_of("which process")

    def killed() -> None:
        (parent,) = (p for p in psutil.Process().children() if "forkserver" in arguments(p))
        if found := parent.children():
            one_of(rng, found).kill()

    kinds: dict[str, Fault] = {
        "worker killed": killed,
        "Postgres gone for 10 s": lambda: server.stop_for(10),
        "Postgres restarted": lambda: server.restart("immediate"),
    }
    faults = Faults()
    pool = {"BACKTEST_POOL": "processes", "BACKTEST_POOL_WORKERS": "3"}
    with opened(server.environment(embedded=False) | pool, faults) as workspace:
        disturbed(server, wide_judge, workspace, faults, kinds, times=3 * len(kinds))


@contextmanager
def opened(environment: dict[str, str], faults: Faults) -> Iterator[Workspace]:
    """The store that an environment leads to, whose pool waits long for its workers."""
    given = {**environment, "BACKTEST_STORE_RETRY_S": str(LIMIT_S)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            if name.startswith("BACKTEST_"):
                patch.setenv(name, value)
        with open_workspace(progress=faults.progress) as workspace:
            yield workspace
    use_folder(None)
