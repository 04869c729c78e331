"""vectorbt, given the orders of finished runs, comes to the same sizes and cash."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.vectorbt_engine.cross_check import (
    Filled,
    Orders,
    fill_orders,
    known_fraction,
    why_not_followed,
)
from backtest_pipeline.trading.sizing import AtrRisk, FixedFractional, Sizing, VolatilityScaled
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import random_events, random_panel

STOPS = StopRules(stop_loss=0.05, take_profit=0.07, trailing_atr=2.5, max_bars=9)


def orders_of(result: BatchResult, fraction: float = np.nan) -> Orders:
    trades = result.trades
    return Orders(
        trades.column,
        trades.side,
        trades.size,
        np.full(len(trades), fraction),
        trades.entry_price,
        trades.exit_price,
        trades.is_open,
    )


def filled(orders: Orders, n_runs: int, config: SimulationConfig) -> Filled:
    costs = config.costs
    return fill_orders(
        orders,
        n_runs,
        fee=costs.fee_bps / 1e4,
        slippage=costs.slippage_bps / 1e4,
        initial_cash=config.initial_cash,
    )


def final_equity(result: BatchResult) -> np.ndarray:
    return result.equity[:, result.panel.offsets[1:] - 1].ravel()


@pytest.mark.parametrize(
    "sizing",
    [FixedFractional(), FixedFractional(0.4), VolatilityScaled(0.3, 10), AtrRisk(0.02, 2.0, 7)],
)
def test_stops_and_reversals_come_to_the_same_cash(
    sizing: Sizing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtest_pipeline.simulation.vectorbt_engine.cross_check._CELLS", 2_000)
    rng = np.random.default_rng(11)
    panel = random_panel(rng, [300, 2, 500], volatility=0.03)
    config = SimulationConfig(sizing=sizing, stops=STOPS, cooldown_bars=1, lot_size=1e-3)
    ours = simulate_batch(panel, random_events(rng, 20, panel), config)
    assert not ours.liquidated.any()
    theirs = filled(orders_of(ours), 60, config)
    np.testing.assert_allclose(theirs.equity, final_equity(ours), rtol=1e-9)
    assert theirs.size_difference.max() < 1e-9


def test_fractions_are_sized_by_vectorbt_itself() -> None:
    rng = np.random.default_rng(12)
    panel = random_panel(rng, [300], volatility=0.02)
    config = SimulationConfig(sizing=FixedFractional(0.4))
    ours = simulate_batch(panel, random_events(rng, 5, panel), config)
    orders = orders_of(ours, 0.4)
    right = filled(orders, 5, config)
    np.testing.assert_allclose(right.equity, final_equity(ours), rtol=1e-9)
    assert right.size_difference.max() < 1e-9
    wrong = replace(orders, size=orders.size * np.where(np.arange(len(orders.size)) == 3, 1.1, 1))
    assert 0.09 < filled(wrong, 5, config).size_difference.max() < 0.1


def test_a_fill_that_is_off_by_a_hundredth_of_a_basis_point_is_noticed() -> None:
    rng = np.random.default_rng(12)
    panel = random_panel(rng, [300], volatility=0.02)
    config = SimulationConfig()
    ours = simulate_batch(panel, random_events(rng, 5, panel), config)
    orders = orders_of(ours, 1.0)
    first = np.arange(len(orders.size)) == 0
    moved = replace(orders, exit_price=orders.exit_price * np.where(first, 1 + 1e-6, 1))
    off = np.abs(filled(moved, 5, config).equity / final_equity(ours) - 1)
    assert off[0] > 5e-7
    assert off[1:].max() < 1e-9


CONFIG = {
    "sizing": {"mode": "fixed", "fraction": 0.5},
    "max_leverage": 1.0,
    "lot_size": 0.0,
    "funding": None,
    "costs": {"funding_bps_day": 0.0},
}


@pytest.mark.parametrize(
    ("change", "fraction"),
    [
        ({}, 0.5),
        ({"sizing": {"mode": "equal", "n_assets": 4}}, 0.25),
        ({"sizing": {"mode": "equal", "n_assets": None}}, 1.0),
        ({"sizing": {"mode": "atr", "risk": 0.01}}, np.nan),
        ({"sizing": None}, np.nan),
        ({"lot_size": {"BTC": 0.1}}, np.nan),
        ({"max_leverage": 0.5}, np.nan),
    ],
)
def test_the_fraction_is_known_where_each_entry_uses_the_same(
    change: dict[str, object], fraction: float
) -> None:
    np.testing.assert_equal(known_fraction(CONFIG | change), fraction)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"funding": "hash"}, "funding"),
        ({"costs": {"funding_bps_day": 3.0}}, "funding"),
        ({"max_leverage": 2.0}, "max_leverage above 1"),
        ({"engine": "vectorbt"}, "vectorbt simulated it itself"),
    ],
)
def test_what_vectorbt_does_not_know_is_not_given_to_it(
    change: dict[str, object], reason: str | None
) -> None:
    assert why_not_followed(CONFIG | change) == reason
