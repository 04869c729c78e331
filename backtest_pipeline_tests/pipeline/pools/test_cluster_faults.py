"""Whatever of a cluster or its store is lost in the middle of a refresh, the rows are the same.

In short: `make chaos` has the same with many more faults (chaos/test_cluster.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.strategies.known_strategies import use_folder
from backtest_pipeline_tests.chaos.proxy import Proxy, proxy_to
from backtest_pipeline_tests.pipeline.markets import Contents, assert_same, contents, refresh
from backtest_pipeline_tests.pipeline.pools.clusters import (
    Faults,
    RunningCluster,
    running_cluster,
    wait_for_workers,
)
from backtest_pipeline_tests.pipeline.pools.universes import (
    EARLIER,
    PARTITIONS,
    UNIVERSE,
    WorkedStore,
    worked_store,
)
from backtest_pipeline_tests.waiting import LIMIT_S

N_WORKERS = 4
GONE_S = 10
TTL_S = 15
"""After this time a frozen worker is given up."""


@pytest.fixture
def proxy(template: Database) -> Iterator[Proxy]:
    """What the store is reached through."""
    with proxy_to(template.conninfo) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def shipped_strategies() -> Iterator[None]:
    """Whatever folder the store has: those of the package, for the tests after these."""
    yield
    use_folder(None)


@pytest.fixture
def store(template: Database, tmp_path: Path) -> Iterator[WorkedStore]:
    yield from worked_store(template, tmp_path / "store")


@pytest.fixture
def cluster(store: WorkedStore, proxy: Proxy, tmp_path: Path) -> Iterator[RunningCluster]:
    through = {"BACKTEST_POSTGRES_DSN": proxy.dsn(store.database.conninfo)}
    environment = {**store.environment(store_retry_s=LIMIT_S), **through}
    ttl = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{TTL_S}s"}
    with running_cluster(tmp_path, environment, workers=N_WORKERS, **ttl) as cluster:
        yield cluster


def test_a_refresh_outlasts_lost_workers_a_new_scheduler_and_a_store_that_is_gone(
    cluster: RunningCluster,
    proxy: Proxy,
    inline: Contents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, word in cluster.environment.items():
        monkeypatch.setenv(name, word)
    faults = Faults()
    with open_workspace(load_settings(), progress=faults.progress) as workspace:

        def all_are_there() -> None:
            wait_for_workers(cluster, lambda: workspace.pool.size, N_WORKERS)

        def restarted() -> None:
            cluster.restart_scheduler()
            # One that freezes before a scheduler has heard of it would never be missed.
            all_are_there()

        all_are_there()
        refresh(workspace, EARLIER, PARTITIONS)
        faults.plan("features", "worker killed", lambda: cluster.computing()[0].kill())
        faults.plan("signals", "scheduler restarted", restarted)
        faults.plan("backtests", "worker frozen", lambda: cluster.computing()[-1].suspend())
        faults.plan("backtests", "store gone", lambda: proxy.go_for(GONE_S))
        reports = refresh(workspace, UNIVERSE, PARTITIONS)
        assert len(faults.happened) == 4
        assert not any(report.failed for report in reports.values())
        assert_same(contents(workspace), inline)
        all_are_there()
    assert cluster.stop() == []
