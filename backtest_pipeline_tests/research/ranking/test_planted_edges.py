"""Edges of a known size: what is planted is earned by the rule that has it, and found."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.ranking.leaderboard import Gate
from backtest_pipeline.research.ranking.negative_controls import (
    search,
    verdicts,
    walk_forwards_pass,
)
from backtest_pipeline.research.ranking.planted_edges import (
    PLANTED,
    PLANTED_STRATEGY,
    planted_grid,
    with_edge,
)
from backtest_pipeline.research.ranking.random_markets import (
    BarMoves,
    RandomMarket,
    bar_moves,
    random_markets,
)
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.grid import parameter_grid
from backtest_pipeline.trading.costs import CostModel

FREE = SimulationConfig(costs=CostModel(0.0, 0.0))


@cache
def sample() -> Panel:
    return SampleMarket().read(("S-ALPHA", "S-ZETA")).panels["1D"]


def markets(kind: RandomMarket, sharpe: float, n: int = 60, n_bars: int = 1461) -> Panel:
    bars = sample().select(["S-ALPHA"])
    like = bars.take(np.arange(len(bars)) < n_bars)
    return random_markets(kind, bar_moves(sample()), like, range(n), 3, sharpe / np.sqrt(365))


@pytest.mark.parametrize("kind", RandomMarket)
def test_the_rule_that_has_the_edge_earns_what_was_planted(kind: RandomMarket) -> None:
    only = {"fast": [PLANTED.fast], "slow": [PLANTED.slow]}
    grid = parameter_grid(PLANTED_STRATEGY, only, most=1)
    without, planted = (
        search(markets(kind, sharpe), [grid], FREE)["sharpe"].to_numpy(float).mean()
        for sharpe in (0.0, 2.0)
    )
    # The account does not rebalance between crosses, so that its exposure and thereby its Sharpe
    # ratio waver: it keeps some nine tenths.
    assert 1.6 < planted - without < 2.1


def test_an_edge_of_zero_is_none_and_the_bars_stay_bars() -> None:
    plain = random_markets(
        RandomMarket.SHUFFLED_BARS, bar_moves(sample()), sample().select(["S-ZETA"]), range(2), 3
    )
    none = markets(RandomMarket.SHUFFLED_BARS, 0.0, 2, len(sample().select(["S-ZETA"])))
    assert np.array_equal(plain["close"], none["close"])
    lifted = markets(RandomMarket.SHUFFLED_BARS, 3.0, 2)
    assert np.all(lifted["high"] >= np.maximum(lifted["open"], lifted["close"]))
    assert np.all(lifted["low"] <= np.minimum(lifted["open"], lifted["close"]))


def test_the_drift_knows_no_later_bar() -> None:
    rng = np.random.default_rng(1)
    body = 0.02 * rng.standard_normal(400)
    moves = BarMoves(np.zeros(400), np.maximum(body, 0), np.minimum(body, 0), body)
    other = moves.body.copy()
    other[300:] = other[300:][::-1]
    changed = BarMoves(moves.gap, moves.high, moves.low, other)  # of the same volatility
    assert changed.volatility == pytest.approx(moves.volatility)
    before = (with_edge(one, 0.1).body[:301] - one.body[:301] for one in (moves, changed))
    np.testing.assert_allclose(next(before), next(before))


def test_the_stronger_the_edge_the_more_often_it_is_found() -> None:
    gates = [Gate("significance", "dsr_across_families", at_least=0.95)]
    found = []
    for sharpe in (1.0, 3.0):
        bars = markets(RandomMarket.RANDOM_WALK, sharpe, 40)
        passed = walk_forwards_pass(bars, [planted_grid()], FREE, 5)
        found.append(verdicts(search(bars, [planted_grid()], FREE), gates, passed))
    weak, strong = found
    assert weak.n_walk_forwards_passed < 20 < 30 < strong.n_walk_forwards_passed
    assert weak.n_significant < strong.n_significant
    assert all(one.n_declared_passed >= one.n_walk_forwards_passed for one in found)
