"""Dagster runs whose batches are done elsewhere: Dagster knows the same of each partition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from backtest_pipeline.defs.partitions import register_partitions
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.defs.conftest import named
from backtest_pipeline_tests.defs.running import rectangle, require_success, run_job, told
from backtest_pipeline_tests.pipeline.markets import Contents, assert_same, contents
from backtest_pipeline_tests.pipeline.pools.clusters import running_cluster

ASSETS = tuple(f"U{number:02}" for number in range(14))
ALL = rectangle(f"{ASSETS[0]}|1D", f"{ASSETS[-1]}|2D")
ROWS = 1_500
VERSIONS = ("dagster/code_version", "dagster/data_version")
CHAIN = ("bars", "cmc_features", "signals", "backtests")

Known = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bars")
    for asset in ASSETS:
        write(daily_bars(ROWS, asset), folder / f"{asset}.csv")
    return folder


@contextmanager
def store(template: Database, folder: Path, bars: Path) -> Iterator[Workspace]:
    """An empty store, as the environment names it."""
    with ExitStack() as stack:
        database = stack.enter_context(contextmanager(database_like)(template, "backtest"))
        stack.enter_context(named(database, folder / "artifacts"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("BACKTEST_BARS", str(bars))
        patch.setenv("BACKTEST_HOME", str(folder))
        patch.setenv("BACKTEST_TIMEFRAMES", "1D,2D")
        yield Workspace(database, ArtifactStore(folder / "artifacts"))


def refreshed(workspace: Workspace) -> tuple[Known, Contents]:
    """What Dagster knows of each asset's partitions after a refresh, and what the store holds."""
    with dg.DagsterInstance.ephemeral() as instance:
        register_partitions(instance, ASSETS)
        run = run_job(instance, "refresh", ALL)
        require_success(run)
        known = {
            asset: {
                key: {name: (event.tags or {})[name] for name in VERSIONS}
                for key, event in told(instance, run, asset).items()
            }
            for asset in CHAIN
        }
        assert {len(events) for events in known.values()} == {2 * len(ASSETS)}
    return known, contents(workspace)


@pytest.fixture(scope="module")
def inline(
    template: Database, bars: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Known, Contents]:
    with store(template, tmp_path_factory.mktemp("inline"), bars) as workspace:
        return refreshed(workspace)


@pytest.mark.chaos
def test_a_run_with_processes_tells_the_same(
    template: Database,
    bars: Path,
    inline: tuple[Known, Contents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKTEST_POOL", "processes")
    monkeypatch.setenv("BACKTEST_POOL_WORKERS", "2")
    with store(template, tmp_path, bars) as workspace:
        known, found = refreshed(workspace)
    assert known == inline[0]
    assert_same(found, inline[1])


@pytest.mark.chaos
def test_a_run_with_a_cluster_tells_the_same(
    template: Database,
    bars: Path,
    inline: tuple[Known, Contents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        store(template, tmp_path / "store", bars) as workspace,
        running_cluster(tmp_path, {}, workers=2) as cluster,
    ):
        for name in ("POOL", "POOL_TLS", "POOL_ADDRESS"):
            monkeypatch.setenv(f"BACKTEST_{name}", cluster.environment[f"BACKTEST_{name}"])
        monkeypatch.setenv("BACKTEST_STORE_RETRY_S", "300")
        known, found = refreshed(workspace)
    assert known == inline[0]
    assert_same(found, inline[1])
