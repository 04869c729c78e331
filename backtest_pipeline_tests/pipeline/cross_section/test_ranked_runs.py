"""Runs that rank a universe, on a real store."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from backtest_pipeline.market.errors import BadSymbols, UnknownColumn, UnknownName
from backtest_pipeline.pipeline.cross_section.ranked_identity import RankedTerms
from backtest_pipeline.pipeline.cross_section.ranked_runs import run_ranked
from backtest_pipeline.pipeline.replay.bundle_verifier import problems_of
from backtest_pipeline.pipeline.replay.export import bundle_files
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.runs.identity import Window
from backtest_pipeline.pipeline.runs.query import get_run, run_timeseries
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline_tests.sql import column, scalar

MOMENTUM = CrossSection(
    "momentum",
    score="rank_pct(close / shift(close, 20) - 1) - rsi_14 / 1000",
    count=3,
    side="long_short",
    universe="mean(close * volume, 20) > 0",
    horizon=5,
)


def test_a_run_is_stored_once_and_replays_to_the_bit(refreshed: Workspace) -> None:
    run_id, is_new = run_ranked(refreshed, MOMENTUM, "1D", RankedTerms())
    assert is_new
    assert run_ranked(refreshed, MOMENTUM, "1D", RankedTerms()) == (run_id, False)
    run = get_run(refreshed, run_id)
    assert (run.split, run.strategy, run.is_current) == (
        "cross_section",
        "cross_section:momentum",
        True,
    )
    found = run.results["cross_section"]
    assert found["figures"]["mean_ic"] is not None
    assert found["rebalances"]["traded"] > 50
    equity = run_timeseries(refreshed, run_id)["equity"].to_numpy()
    pnl = column(
        refreshed.database, "SELECT pnl FROM backtest_trades WHERE run_id = :id", id=run_id
    )
    assert 10_000 + sum(pnl) == pytest.approx(equity[-1], rel=1e-9)
    (replayed,) = replay_runs(refreshed, [run_id])
    assert (replayed.verdict, replayed.differences) == (ReplayVerdict.SAME, ())
    files = bundle_files(refreshed, run_id)
    assert problems_of(files) == []
    assert {"daily_ic.parquet", "daily_signals.parquet", "daily_weights.parquet"} <= files.keys()
