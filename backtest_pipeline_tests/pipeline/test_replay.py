"""Stored runs are computed again to the last bit, and whatever was changed is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from backtest_pipeline.pipeline.identity import Asked, Window
from backtest_pipeline.pipeline.replay import Replay, Verdict, replay_runs
from backtest_pipeline.pipeline.single_run import backtest_once
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.sizing import AtrRisk, EqualWeight, VolatilityScaled
from backtest_pipeline.simulation.stops import StopRules
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS
from backtest_pipeline_tests.pipeline.walking_process import MARKET as WALKED
from backtest_pipeline_tests.pipeline.walking_process import PARTITIONS as TO_WALK
from backtest_pipeline_tests.pipeline.walking_process import walk


def run_ids(workspace: Workspace, condition: str = "is_current") -> list[Any]:
    query = f"SELECT run_id FROM backtest_runs WHERE {condition} ORDER BY symbol, tf, signal_id"
    with workspace.database.begin() as connection:
        return list(connection.execute(sa.text(query)).scalars())


def execute(workspace: Workspace, statement: str, **values: Any) -> None:
    with workspace.database.begin() as connection:
        connection.execute(sa.text(statement), values)


def once(workspace: Workspace, asked: Asked, **what: str) -> Mapping[str, Any]:
    told = {"signal": "ema_9_21", "asset": "A", "tf": "1D"} | what
    return backtest_once(workspace, MARKET, asked=asked, **told)  # pyright: ignore[reportArgumentType]


def assert_same(replays: list[Replay]) -> None:
    assert replays
    for one in replays:
        assert one.verdict is Verdict.SAME, one
        assert one.found == one.expected
        assert one.differences == one.remarks == ()


def test_every_kind_of_run_replays_to_the_same(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    ts = pd.date_range("2025-01-01", "2026-01-02", freq="8h", tz="UTC")
    rates = FundingRates.of(
        {"A": pd.Series(np.random.default_rng(3).normal(1e-4, 2e-4, len(ts)), ts)}
    )
    stops = StopRules(stop_loss=0.07, take_profit=0.2, trailing_atr=2.5, max_bars=30)
    window = Window(date(2025, 7, 1), date(2025, 12, 1))
    for asked in (
        Asked(SimulationConfig(CostModel(80, 20), delay_bars=1, initial_cash=7.0), window),
        Asked(
            SimulationConfig(stops=stops, sizing=AtrRisk(0.02), max_leverage=2.0), window, "cash"
        ),
        Asked(SimulationConfig(sizing=VolatilityScaled(), lot_size=0.01), Window(), "universe"),
        Asked(SimulationConfig(direction=Direction.SHORT), window, "B", rates),
        Asked(SimulationConfig(sizing=EqualWeight(3), min_notional=5), window, "universe", rates),
    ):
        once(workspace, asked)
    ids = run_ids(workspace)
    assert len(ids) == 6 * len(PARTITIONS) + 5
    assert_same(replay_runs(workspace, ids))


def test_walk_forwards_replay_to_the_same(workspace: Workspace) -> None:
    refresh(workspace, WALKED, TO_WALK)
    walk(workspace)
    ids = run_ids(workspace, "split = 'walk_forward'")
    assert len(ids) == 6
    assert_same(replay_runs(workspace, ids[:4]))
