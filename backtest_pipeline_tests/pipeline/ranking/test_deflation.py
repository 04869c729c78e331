"""Runs against the ledger: known values, what counts, and that noise does not pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

import backtest_pipeline as bp
from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.ranking.deflation import deflate_partitions, deflated, families
from backtest_pipeline.pipeline.ranking.ledger import trials_of
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.stages.conditions import signal_matrix
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.ranking.trials import MOST_CLUSTERED
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.metrics.significance import deflated_sharpe_ratio
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.trials import read_families, record_trials
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline_tests.pipeline.markets import daily_panel, refresh, whole
from backtest_pipeline_tests.pipeline.on_demand import backtest_once

CONFIG = SimulationConfig()


def ledger_of(weekly: np.ndarray, n_trials: int) -> pa.Table:
    """Trials of one family, `(n_sampled, n_weeks)`, as they are read."""
    n = len(weekly)
    return pa.table(
        {
            "symbol": ["A"] * n,
            "family": ["ema_crossover"] * n,
            "n_trials": [n_trials] * n,
            "first_day": np.full(n, 4),
            "weekly_returns": list(weekly.astype(np.float32)),
        }
    )


def test_a_run_is_deflated_by_what_the_ledger_counts() -> None:
    weekly = np.random.default_rng(5).normal(0, 0.01, (100, 180))
    run = pa.table(
        {
            "run_id": ["r"],
            "symbol": ["A"],
            "family": ["ema_crossover"],
            "in_window": [False],
            "sharpe": [2.5 / math.sqrt(250)],
            "n_obs": [1250],
            "skew": [-3.0],
            "kurtosis": [10.0],
        }
    )
    (found,) = deflated(run, families(ledger_of(weekly, 100))).to_pylist()
    wanted = deflated_sharpe_ratio(2.5 / math.sqrt(250), 1250, -3.0, 10.0, 1 / 1249, 100)
    assert found["dsr"] == pytest.approx(wanted, abs=1e-12)
    assert found["n_trials"] == 100
    assert 80 < found["n_trials_effective"] <= 100
    assert found["dsr_effective"] >= found["dsr"]
    # A fine grid around one of them is more trials, and no proof of anything.
    grid = np.repeat(weekly[:1], 400, axis=0)
    (after,) = deflated(run, families(ledger_of(np.vstack([weekly, grid]), 500))).to_pylist()
    assert after["dsr"] < found["dsr"]


def metrics(workspace: Workspace) -> list[dict[str, Any]]:
    with workspace.database.begin() as connection:
        query = "SELECT * FROM backtest_runs JOIN backtest_metrics USING (run_id) WHERE is_current"
        return [dict(row) for row in connection.execute(sa.text(query)).mappings()]


def test_a_refresh_enters_each_signal_on_each_partition_once(workspace: Workspace) -> None:
    partitions = [Partition("S-ALPHA", "1D"), Partition("S-ZETA", "1D")]
    for rebuild in (False, True):
        refresh(workspace, whole(), partitions, rebuild=rebuild)
        with workspace.database.begin() as connection:
            query = "SELECT source, count(*) FROM trials GROUP BY source"
            assert connection.execute(sa.text(query)).all() == [("refresh", 12)]
    counts = {(row["strategy"], row["n_trials"]) for row in metrics(workspace)}
    assert counts == {("ema_crossover", 3), ("rsi_mean_revert", 2), ("atr_breakout", 1)}
    for row in metrics(workspace):
        assert row["dsr"] <= row["dsr_effective"] <= row["psr"]
        assert row["trial_id"] is not None


def test_a_run_and_a_sweep_of_the_same_bars_try_the_same(workspace: Workspace) -> None:
    terms = RunTerms(CONFIG)
    run = backtest_once(
        workspace, SampleMarket(), signal="ema_9_21", asset="S-ALPHA", tf="1D", terms=terms
    )
    assert (run["n_trials"], run["dsr"]) == (1, run["psr"])
    bars = bp.load_bars(asset="S-ALPHA")
    bp.explore(
        bars, "ema", {"fast": [5, 9], "slow": [21, 50]}, asset="S-ALPHA", workspace=workspace
    )
    with workspace.database.begin() as connection:
        sources = connection.execute(sa.text("SELECT source FROM trials")).scalars()
        assert sorted(sources) == ["run", "sweep", "sweep", "sweep"]
    found = deflate_partitions(workspace, [Partition("S-ALPHA", "1D")])
    family = found[Partition("S-ALPHA", "1D")]["ema_crossover"]
    (weighed,) = metrics(workspace)
    assert weighed["n_trials"] == family.n_trials == 4
    assert weighed["dsr"] < run["dsr"]
    for name in ("run_id", "result_fingerprint", "psr", "sharpe"):
        assert weighed[name] == run[name]


def test_of_one_thousand_searches_over_random_walks_few_pass(database: Database) -> None:
    n_walk_forwards = 1000
    panel = daily_panel({f"W{i:04}": 400 for i in range(n_walk_forwards)}, seed=11)
    signals = [
        SignalRow(i, f"ema_{fast}_{slow}", "ema_crossover", {"fast": fast, "slow": slow})
        for i, (fast, slow) in enumerate((f, s) for f in (5, 10, 20) for s in (30, 60, 90))
    ]
    panel = with_indicators(panel, [f"ema_{n}" for n in (5, 10, 20, 30, 60, 90)])
    free = SimulationConfig(costs=bp.CostModel(fee_bps=0.0, slippage_bps=0.0))
    batch = simulate_batch(panel, signal_matrix(panel, signals), free)
    trials = trials_of(
        batch,
        [signal.params for signal in signals],
        strategy="ema_crossover",
        dataset_versions=dict.fromkeys(panel.assets, "v"),
        terms=RunTerms(free),
        source="sweep",
    )
    with database.arrow() as connection, connection.cursor() as cursor:
        assert record_trials(cursor, trials) == n_walk_forwards * len(signals)
        found = families(read_families(cursor, "1D", panel.assets, (), MOST_CLUSTERED))
    runs = trials.append_column("run_id", trials["trial_id"])
    runs = runs.append_column("in_window", pa.array([False] * len(trials)))
    weighed = deflated(runs.append_column("family", trials["strategy"]), found)

    def share_that_passes(probability: np.ndarray) -> float:
        best = np.nan_to_num(probability).reshape(len(signals), n_walk_forwards).max(axis=0)
        return float((best >= 0.95).mean())

    assert share_that_passes(batch.metrics["psr"]) > 0.08  # the best of nine, as if it were one
    assert share_that_passes(weighed["dsr"].to_numpy()) <= 0.05
