"""Luck is not believed, and an edge that is there is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.ranking.leaderboard import Gate
from backtest_pipeline.research.ranking.negative_controls import (
    Verdicts,
    search,
    search_grids,
    verdicts,
    walk_forwards_pass,
)
from backtest_pipeline.research.ranking.random_markets import (
    BarMoves,
    RandomMarket,
    bar_moves,
    random_markets,
)
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.registry import strategies
from backtest_pipeline.strategies.strategy import conditions_of
from backtest_pipeline.trading.costs import CostModel

GRIDS = search_grids(strategies().values())
FREE = SimulationConfig(costs=CostModel(0.0, 0.0))
GATES = (
    Gate("trades", "trade_count", at_least=30),
    Gate("significance", "dsr_across_families", at_least=0.95),
)


@cache
def market() -> Panel:
    return SampleMarket().read(("S-ALPHA", "S-BETA", "S-ETA")).panels["1D"]


def universe() -> list[BarMoves]:
    return bar_moves(market())


def calendar(n: int) -> Panel:
    bars = market().select(["S-ALPHA"])
    return bars.take(np.arange(len(bars)) < n)


@pytest.mark.parametrize("n", [100, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", RandomMarket)
def test_at_most_one_search_of_random_markets_in_twenty_is_significant(
    kind: RandomMarket, n: int
) -> None:
    found = Verdicts(0, 0, 0, 0, 0, 0, 0, 0)
    for first in range(0, n, 50):
        bars = random_markets(kind, universe(), calendar(1000), range(first, first + 50), 11)
        walk_forwards = walk_forwards_pass(bars, GRIDS, FREE, 5) if first < n // 2 else None
        found += verdicts(search(bars, GRIDS, FREE), GATES, walk_forwards)
    assert found.n_searches == n
    assert found.n_families == n * len(strategies())
    assert found.n_run <= found.n_run_effective
    assert found.run_rate <= 0.05
    assert found.n_walk_forwards == n // 2 * len(strategies())
    assert found.walk_forward_rate <= 0.05
    assert found.n_walk_forwards_passed <= found.n_declared_passed <= 0.1 * found.n_walk_forwards
    assert found.rate <= 0.05
    assert found.n_passed <= found.n_significant <= found.n_in_family <= found.n_naive
    assert found.n_naive > n // 2  # what the machinery is for


def test_stops_within_a_bar_earn_nothing_in_a_random_walk() -> None:
    """A path of few steps jumps over the level that a stop is filled at, and earns the jump."""
    own = [grid for grid in GRIDS if grid.strategy.name == "atr_breakout"]
    bars = random_markets(RandomMarket.RANDOM_WALK, universe(), calendar(1461), range(150), 7)
    sharpe = search(bars, own, FREE)["sharpe"].to_numpy(float).reshape(-1, 150)
    by_market = sharpe.mean(axis=0)
    assert abs(by_market.mean()) < 4 * by_market.std() / np.sqrt(150)


def test_an_edge_that_was_planted_is_believed() -> None:
    """Months that drift up and down by turns: whoever follows the trend earns."""
    bars = random_markets(RandomMarket.RANDOM_WALK, universe(), calendar(1461), range(20), 5)
    drift = np.where(np.arange(1461) // 60 % 2 == 0, 0.014, -0.014)
    lift = np.tile(np.exp(np.cumsum(drift)), 20)
    prices = {name: bars[name] * lift for name in ("open", "high", "low", "close")}
    runs = search(bars.with_columns(prices), GRIDS, SimulationConfig())
    found = verdicts(runs, GATES)
    assert found.n_significant >= 15
    assert found.n_passed >= 15
    assert found.n_run >= 15
    lifted = bars.with_columns(prices)
    passed = walk_forwards_pass(lifted, GRIDS, SimulationConfig(), 5)
    assert passed[0].any(axis=0).sum() >= 15
    assert np.all(passed[0] <= passed[1])


def test_a_search_trades_as_a_run_alone_does() -> None:
    bars = random_markets(RandomMarket.SHUFFLED_BARS, universe(), calendar(700), range(3), 2)
    grids = [grid for grid in GRIDS if grid.strategy.name == "bollinger_revert"]
    runs = search(bars, grids, SimulationConfig())
    (grid,) = grids
    assert len(runs) == 3 * len(grid)
    values = grid.combinations[4]
    params = grid.strategy.parse(dict(zip(grid.names, values, strict=True)))
    alone = bars.select([bars.assets[1]])
    events = condition_bits(conditions_of(grid.strategy, alone, params))[None, :]
    expected = simulate_batch(alone, events, SimulationConfig()).metrics
    row = runs.iloc[4 * 3 + 1]
    assert row["board"] == 1
    assert row["n_days"] == 699
    for name in ("sharpe", "max_drawdown", "trade_count", "fees_paid"):
        assert row[name] == expected[name][0]
    assert row["n_trials"] == len(grid)
    assert 1 <= row["n_trials_effective"] < len(grid)


def test_without_bars_for_one_fold_no_walk_forward_passes() -> None:
    bars = random_markets(RandomMarket.RANDOM_WALK, universe(), calendar(300), range(3), 2)
    assert not walk_forwards_pass(bars, GRIDS, FREE, 5).any()


def test_a_search_tries_every_strategy_there_is() -> None:
    assert {grid.strategy.name for grid in GRIDS} == set(strategies())
    assert all(len(grid) >= 5 for grid in GRIDS)


def test_verdicts_count_searches_and_not_trials() -> None:
    runs = pd.DataFrame(
        {
            "board": [0, 0, 1, 1, 2, 2],
            "sharpe": [2.0, 1.0, 2.0, 3.0, np.nan, np.nan],
            "psr": [0.99, 0.97, 0.99, 0.90, np.nan, np.nan],
            "dsr": [0.96, 0.97, 0.95, 0.10, np.nan, np.nan],
            "dsr_effective": [0.96, 0.98, 0.96, 0.95, np.nan, np.nan],
            "family": ["a", "b", "a", "b", "a", "b"],
            "dsr_across_families": [0.90, 0.96, 0.94, 0.0, np.nan, np.nan],
            "trade_count": [40.0, 10.0, 40.0, 40.0, 0.0, 0.0],
        }
    )
    assert verdicts(runs, GATES) == Verdicts(3, 1, 2, 1, 0, 6, 3, 4)
    one_of_five = np.array([[True, False, False], [False, False, True]])
    walk_forwards = np.array([one_of_five, one_of_five | [[False, True, False]]])
    found = verdicts(runs, GATES, walk_forwards)
    assert (found.n_walk_forwards, found.n_walk_forwards_passed, found.walk_forward_rate) == (
        6,
        2,
        1 / 3,
    )
    assert found.n_declared_passed == 4
    assert found.run_rate == 4 / 6
    assert verdicts(runs, GATES[1:]).n_passed == 1


def test_the_bound_of_a_rate_is_that_of_clopper_and_pearson() -> None:
    none = Verdicts(100, 0, 0, 0, 0, 500, 0, 0)
    assert none.rate == 0
    assert none.upper_bound == pytest.approx(1 - 0.05 ** (1 / 100))
    assert Verdicts(1000, 0, 0, 50, 0, 5000, 0, 0).upper_bound == pytest.approx(0.0629, abs=2e-4)
    assert Verdicts(10, 10, 10, 10, 10, 50, 50, 50).upper_bound == 1
