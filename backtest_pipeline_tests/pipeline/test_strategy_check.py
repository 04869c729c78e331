"""What `strategies check` finds of a strategy that compares assets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backtest_pipeline.market.features import build_features
from backtest_pipeline.pipeline.strategy_check import check_strategy
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.rules.ranks import with_ranks
from backtest_pipeline_tests.own_strategies import own_strategies, write

RULES = 'name = "weak"\nlong_entry = "rank_pct(rsi_14) < 0.3"\nlong_exit = "rsi_14 > 50"'


def test_ranks_are_those_among_all_assets_of_the_sample_market(tmp_path: Path) -> None:
    write(tmp_path, "weak.toml", RULES)
    market = build_features(SampleMarket().read().panels["1D"])
    rank = with_ranks(market, ["rank_pct(rsi_14)"])["rank_pct(rsi_14)"]
    with own_strategies(tmp_path):
        found = check_strategy(strategy_of("weak"), {})
    assert found.true_bars["long_entry"] == np.sum(rank < 0.3) > 1_000
    assert found.changed_by_history[1000] < 0.01
