"""Runs of synthetic assets are marked, and left out of what is made of many real ones."""

from __future__ import annotations

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.ranking.deflation import strategies_tried
from backtest_pipeline.pipeline.runs.query import get_run, list_runs
from backtest_pipeline.pipeline.runs.summary import backtests_summary
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.leaderboard import symbols_with_bars
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh

INVENTED = StaticSource({"1D": daily_panel({"S-A": 250, "S-B": 250})})
REAL = StaticSource({"1D": daily_panel({"BTC": 250})}, name="real", synthetic=False)
PARTITIONS = [Partition(symbol, "1D") for symbol in ("S-A", "S-B", "BTC")]


@pytest.fixture
def sample(workspace: Workspace) -> Workspace:
    """A store with runs of two synthetic assets."""
    refresh(workspace, INVENTED, PARTITIONS[:2])
    return workspace


@pytest.fixture
def mixed(sample: Workspace) -> Workspace:
    """The same store with runs of a real asset."""
    refresh(sample, REAL, PARTITIONS[2:])
    return sample


def test_runs_of_synthetic_assets_are_marked(mixed: Workspace) -> None:
    listed = list_runs(mixed).rows
    assert {(row["symbol"], row["synthetic"]) for row in listed} == {
        *(("S-A", True), ("S-B", True)),
        ("BTC", False),
    }
    for row in listed:
        assert get_run(mixed, row["run_id"]).synthetic == row["synthetic"]


def test_their_trials_do_not_count_for_real_assets(sample: Workspace) -> None:
    before = {name: family.n_trials for name, family in strategies_tried(sample).items()}
    assert before == {"ema_crossover": 6, "rsi_mean_revert": 4, "atr_breakout": 2}
    refresh(sample, REAL, PARTITIONS[2:])
    after = {name: family.n_trials for name, family in strategies_tried(sample).items()}
    assert after == {"ema_crossover": 3, "rsi_mean_revert": 2, "atr_breakout": 1}


def test_a_summary_of_both_is_of_the_real_ones(mixed: Workspace) -> None:
    assert backtests_summary(mixed, PARTITIONS[:2]).numbers["runs"] == 12
    summary = backtests_summary(mixed, PARTITIONS)
    assert (summary.numbers["runs"], summary.numbers["synthetic_assets"]) == (6, 2)
    names = [row["run"] for row in summary.tables["runs_by_sharpe"]]
    assert not any("|" in name for name in names)  # all are of BTC, which needs no name then


def test_random_markets_are_modelled_on_real_bars(sample: Workspace) -> None:
    with sample.database.begin() as connection:
        assert list(symbols_with_bars(connection, "1D")) == ["S-A", "S-B"]
    refresh(sample, REAL, PARTITIONS[2:])
    with sample.database.begin() as connection:
        assert list(symbols_with_bars(connection, "1D")) == ["BTC"]
