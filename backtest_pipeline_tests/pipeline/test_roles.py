"""A login with the role of a writer does all the work, one with that of a reader only looks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backtest_pipeline.market.errors import StoreError
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.folds import Plan
from backtest_pipeline.pipeline.identity import Asked
from backtest_pipeline.pipeline.leaderboard import publish_leaderboard
from backtest_pipeline.pipeline.portfolios import RollupConfig
from backtest_pipeline.pipeline.restatements import watch_history
from backtest_pipeline.pipeline.rollups import roll_up
from backtest_pipeline.pipeline.summary import backtests_summary
from backtest_pipeline.pipeline.walking import prepare_walk, walk_once
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.schedule import Schedule
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.database import connect_database
from backtest_pipeline.storage.migrations import check
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.pipeline.on_demand import assess_once

MARKET = StaticSource({"1D": daily_panel({"A": 300, "B": 250})})
PARTITIONS = [Partition(asset, "1D") for asset in "AB"]
ASKED = Asked(SimulationConfig())

Opening = Callable[[str], Workspace]


@pytest.fixture
def login(workspace: Workspace) -> Iterator[Opening]:
    """Opens the store as a new user of a role and nothing else."""
    opened: list[Workspace] = []
    names: list[str] = []
    with psycopg.connect(workspace.database.conninfo, autocommit=True) as server:

        def open_as(role: str) -> Workspace:
            names.append(f"login_{uuid.uuid4().hex[:12]}")
            create = sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}")
            server.execute(create.format(sql.Identifier(names[-1]), sql.Identifier(role)))
            dsn = make_conninfo(workspace.database.conninfo, user=names[-1])
            opened.append(Workspace(connect_database(dsn), workspace.artifacts))
            return opened[-1]

        yield open_as
        for one in opened:
            one.database.close()
        for name in names:
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_writer_can_refresh_and_publish_whatever_there_is(login: Opening) -> None:
    writer = login("backtest_writer")
    check(writer.database)
    for rebuild in (False, True):
        reports = refresh(writer, MARKET, PARTITIONS, rebuild=rebuild)
        assert not any(report.failed for report in reports.values())
    assert roll_up(writer, "1D", RollupConfig(lookback=40))
    one = {"signal": "ema_9_21", "asset": "A", "tf": "1D", "asked": ASKED}
    assert assess_once(writer, MARKET, **one, draws=5)["robustness"]
    plan = Plan(Schedule(150, 60))
    prepared = prepare_walk(writer, MARKET, asset="A", tf="1D", asked=ASKED, schedule=plan.schedule)
    assert walk_once(writer, prepared, strategy="ema", params={}, asked=ASKED, plan=plan)["folds"]
    assert publish_leaderboard(writer, late_gates=True).rows
    watch_history(writer)


def test_a_reader_sees_results_and_can_change_none(workspace: Workspace, login: Opening) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    reader = login("backtest_reader")
    found = backtests_summary(reader, PARTITIONS)
    assert found.numbers == backtests_summary(workspace, PARTITIONS).numbers
    with pytest.raises(StoreError, match="permission denied"):
        refresh(reader, MARKET, PARTITIONS, rebuild=True)
    with pytest.raises(StoreError, match="permission denied"):
        roll_up(reader, "1D", RollupConfig(lookback=40))
    with pytest.raises(StoreError, match="permission denied"):
        publish_leaderboard(reader, late_gates=True)
