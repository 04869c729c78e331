"""Trades in another order: the path changes, and nothing else."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.robustness.trade_order import (
    max_drawdowns,
    reordered_drawdowns,
    trade_paths,
    trade_returns,
)
from backtest_pipeline_tests.research.runs import random_run

RETURNS = st.lists(st.floats(-0.9, 2.0), min_size=2, max_size=12).map(np.array)


@given(st.integers(0, 10_000))
def test_the_growth_of_the_trades_is_the_growth_of_the_run(seed: int) -> None:
    run = random_run(np.random.default_rng(seed), 120)
    result = run.simulated()
    growth = np.prod(1 + trade_returns(result.trades, run.config.initial_cash))
    np.testing.assert_allclose(growth, result.equity[0, -1] / 10_000, rtol=1e-9, atol=1e-12)


@given(RETURNS, st.integers(0, 1000))
def test_no_order_changes_the_final_value_or_the_sharpe_ratio(
    returns: np.ndarray, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(returns)
    np.testing.assert_allclose(
        trade_paths(order[None])[0, -1], trade_paths(returns[None])[0, -1], rtol=1e-12
    )
    if returns.std() > 1e-9:
        np.testing.assert_allclose(
            order.mean() / order.std(ddof=1), returns.mean() / returns.std(ddof=1), atol=1e-9
        )


def test_drawdowns_are_those_of_the_orders_there_are() -> None:
    returns = np.array([0.5, -0.2, -0.3, 0.1])
    by_order = {
        round(float(max_drawdowns(trade_paths(np.array([order])))[0]), 12)
        for order in permutations(returns)
    }
    found = reordered_drawdowns(returns, 500, 0)
    assert set(np.round(found, 12)) == by_order
    assert min(by_order) == pytest.approx(0.8 * 0.7 - 1)


@given(RETURNS)
def test_the_deepest_of_all_orders_loses_all_losers_in_a_row(returns: np.ndarray) -> None:
    found = reordered_drawdowns(returns, 20, 1)
    assert np.all(found <= 0)
    worst = np.prod(1 + np.minimum(returns, 0)) - 1
    assert np.all(found >= worst - 1e-12)


def test_seeds_decide_the_orders() -> None:
    returns = np.linspace(-0.3, 0.4, 30)
    first = reordered_drawdowns(returns, 40, 3)
    np.testing.assert_array_equal(reordered_drawdowns(returns, 20, 3), first[:20])
    assert not np.array_equal(reordered_drawdowns(returns, 40, 4), first)
    with pytest.raises(InvalidInput, match="draws must be"):
        reordered_drawdowns(returns, 0, 3)
