"""The whole chain with its artifacts in a bucket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.pipeline.markets import assert_same, contents, refresh
from backtest_pipeline_tests.pipeline.on_demand import backtest_once
from backtest_pipeline_tests.pipeline.processes import MARKET, market_without

SOME = [Partition(asset, tf) for asset in "AB" for tf in ("1D", "3D")]


def test_a_refresh_into_a_bucket_equals_one_onto_the_disk_and_is_replayed(
    fresh_store: Callable[[], Workspace], s3: str, tmp_path: Path
) -> None:
    straight, store = fresh_store(), fresh_store()
    settings = load_settings(
        run_store_mode="postgres",
        postgres_dsn=store.database.conninfo,
        home=tmp_path / "home",
        artifacts_url=s3,
    )
    with open_workspace(settings) as remote:
        for source in (market_without(3), MARKET):  # history grows
            refresh(straight, source, SOME)
            refresh(remote, source, SOME)
        assert_same(contents(remote), contents(straight))
        elsewhere = replace(remote, artifacts=ArtifactStore(tmp_path / "other machine", s3))
        assert_same(contents(elsewhere), contents(straight))
        refresh(elsewhere, MARKET, SOME, rebuild=True)
        assert_same(contents(elsewhere), contents(straight))
        ts = pd.date_range("2025-01-01", "2026-01-02", freq="8h", tz="UTC")
        rates = FundingRates.of(
            {"A": pd.Series(np.random.default_rng(3).normal(1e-4, 2e-4, len(ts)), ts)}
        )
        funded = backtest_once(
            elsewhere,
            MARKET,
            signal="ema_9_21",
            asset="A",
            tf="1D",
            terms=RunTerms(SimulationConfig(), funding=rates),
        )
        with remote.database.begin() as connection:
            query = sa.text("SELECT run_id FROM backtest_runs WHERE is_current LIMIT 5")
            run_ids = [*connection.execute(query).scalars(), funded["run_id"]]
        fresh = replace(remote, artifacts=ArtifactStore(tmp_path / "third machine", s3))
        replays = replay_runs(fresh, run_ids)
    assert [one.verdict for one in replays] == [ReplayVerdict.SAME] * len(run_ids), replays
