"""Refreshes that append bars, killed at any instant or two at once, end as if undisturbed."""

from __future__ import annotations

import pytest

from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.audits.incremental import recomputed_features, recomputed_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.chaos.harness import random_of
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import Contents, assert_same, contents, refresh
from backtest_pipeline_tests.pipeline.processes import (
    MARKET,
    PARTITIONS,
    event,
    growing,
    market_without,
    refreshing,
)
from backtest_pipeline_tests.sql import scalar
from backtest_pipeline_tests.waiting import LIMIT_S

DAYS = 12


@pytest.fixture(scope="module")
def at_once(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """What one full refresh of the market leaves."""
    found: Contents = {}
    for database in database_like(template, "backtest"):
        store = Workspace(database, ArtifactStore(tmp_path_factory.mktemp("at-once")))
        refresh(store, MARKET, PARTITIONS)
        found = contents(store)
    return found


@pytest.fixture
def grown(workspace: Workspace) -> Workspace:
    """A store that lacks the last days."""
    refresh(workspace, market_without(DAYS), PARTITIONS)
    return workspace


def _days_missing(workspace: Workspace) -> int:
    query = "SELECT min(last_ts) FROM dataset_versions WHERE dataset = 'bars' AND tf = '1D'"
    known = scalar(workspace, query)
    assert known is not None
    return round((MARKET.panels["1D"].ts.max() / 1e6 - known.timestamp()) / (DAY_US / 1e6))


def _assert_sound(workspace: Workspace) -> None:
    for found in (recomputed_features(workspace, 99), recomputed_signals(workspace, 99)):
        assert found.differing == ()


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.chaos)])
def test_appending_refreshes_that_are_killed_leave_what_a_full_one_does(
    grown: Workspace, at_once: Contents, kills: int
) -> None:
    rng = random_of("growth")
    killed = 0
    for _ in range(kills):
        process = growing(grown, _days_missing(grown) + 1)
        process.join(0.15 + rng.random() * 0.6)
        process.kill()
        process.join()
        killed += process.exitcode != 0
        _assert_sound(grown)
    assert killed
    refresh(grown, MARKET, PARTITIONS)
    _assert_sound(grown)
    assert_same(contents(grown), at_once)


@pytest.mark.parametrize("folder", ["bars/1D", "features/1D", "features/3D"])
def test_a_refresh_that_is_killed_while_it_writes_a_snapshot_leaves_nothing_of_it(
    grown: Workspace, at_once: Contents, folder: str
) -> None:
    root = grown.artifacts.root / folder
    before = {path.name for path in root.iterdir()}
    held = event()
    process = growing(grown, DAYS, held_in=root, held=held)
    assert held.wait(LIMIT_S)
    assert list(root.glob(".unfinished-*"))
    process.kill()
    process.join()
    left = {path.name for path in root.iterdir() if not path.name.startswith(".unfinished-")}
    assert left == before
    _assert_sound(grown)
    refresh(grown, MARKET, PARTITIONS)
    assert_same(contents(grown), at_once)


def test_processes_that_append_the_same_at_once_agree(grown: Workspace, at_once: Contents) -> None:
    processes = [refreshing(grown, rebuild=False) for _ in range(2)]
    for process in processes:
        process.join(LIMIT_S)
    assert [process.exitcode for process in processes] == [0, 0]
    assert_same(contents(grown), at_once)


def test_processes_that_know_other_bars_at_once_mix_nothing(
    grown: Workspace, at_once: Contents
) -> None:
    """One may find that another has replaced what it is about to read, and says so."""
    processes = [growing(grown, DAYS), refreshing(grown, rebuild=False), growing(grown, 5)]
    for process in processes:
        process.join(LIMIT_S)
        assert process.exitcode is not None
    _assert_sound(grown)
    refresh(grown, MARKET, PARTITIONS)
    assert_same(contents(grown), at_once)
