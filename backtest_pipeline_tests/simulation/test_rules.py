"""Stops and cooldowns that runs trade by: their own, else those of their strategy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import backtest_pipeline as bp
from backtest_pipeline.simulation.config import PositionRules, SimulationConfig
from backtest_pipeline.simulation.rules import RulesOfRuns, config_for, config_of_all
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.sizing import AtrRisk, ByExpression, FixedFractional, Sizing
from backtest_pipeline.trading.stops import StopRules

RSI = {"period": 14, "lower": 30, "upper": 70}


@pytest.mark.parametrize(
    ("asset", "stops", "n_trades", "total_return"),
    [
        ("S-ALPHA", {"stop_loss": 0.05}, 17, 0.673),
        ("S-GAMMA", {"stop_loss": 0.05}, 31, 2.647),
        ("S-ALPHA", {"max_bars": 10}, 15, 0.081),
        ("S-BETA", {"take_profit": 0.1}, 11, -0.455),
    ],
)
def test_an_entry_after_a_stop_is_made_as_any_other(
    asset: str, stops: dict[str, float], n_trades: int, total_return: float
) -> None:
    """The rule as pandas says it, traded by the account: no entry waits for the rule's own exit."""
    bars = bp.load_bars(asset=asset)
    rsi = bp.build_features(bars)["rsi_14"]
    entry = pd.Series((rsi.shift(1) <= 30) & (rsi > 30))
    by_hand = bp.simulate(bars, entry, rsi >= 70, stops=bp.StopRules(**stops))  # pyright: ignore[reportArgumentType]
    ours = bp.run_backtest(
        bars,
        "rsi_mean_revert",
        RSI,
        direction="long",
        stops=bp.StopRules(**stops),  # pyright: ignore[reportArgumentType]
    )
    pd.testing.assert_series_equal(ours.equity, by_hand.equity)
    assert len(ours.trades) == n_trades
    assert ours.metrics["total_return"] == pytest.approx(total_return, abs=5e-4)


def test_a_stop_of_the_run_replaces_those_of_its_strategy() -> None:
    breakout = strategy_of("atr_breakout")
    params = breakout.parse({"trail_mult": 3.0, "atr_period": 20})
    own = StopRules(trailing_atr=3.0, atr_period=20)
    assert config_for(SimulationConfig(), breakout, params).stops == own
    given = SimulationConfig(stops=StopRules(stop_loss=0.1))
    assert config_for(given, breakout, params).stops == StopRules(stop_loss=0.1)
    bars = bp.load_bars(asset="S-ALPHA")
    trailed = bp.run_backtest(bars, "atr_breakout", {}).trades
    assert set(trailed["entry_stop_kind"]) == {"trailing_stop"}
    fixed = bp.run_backtest(bars, "atr_breakout", {}, stops=bp.StopRules(stop_loss=0.1)).trades
    assert set(fixed["entry_stop_kind"]) == {"stop_loss"}
    np.testing.assert_allclose(
        fixed["entry_stop"],
        fixed["entry_price"] * np.where(fixed["direction"] == "long", 0.9, 1.1),
    )


def test_a_cooldown_is_that_of_the_run_else_of_the_strategy() -> None:
    crossover = strategy_of("ema_crossover")
    resting = crossover.parse({"cooldown_bars": 7})
    assert config_for(SimulationConfig(), crossover, resting).cooldown_bars == 7
    assert config_for(SimulationConfig(cooldown_bars=2), crossover, resting).cooldown_bars == 2


@pytest.mark.parametrize(
    ("own", "leverage", "expected"),
    [
        (None, 1.0, FixedFractional(0.3)),
        (None, 0.2, FixedFractional(0.2)),
        (FixedFractional(1.0), 1.0, FixedFractional(1.0)),
        (AtrRisk(0.02), 1.0, AtrRisk(0.02)),
    ],
)
def test_a_sizing_is_that_of_the_run_else_of_the_strategy(
    own: Sizing | None, leverage: float, expected: Sizing
) -> None:
    crossover = strategy_of("ema_crossover")
    sized = replace(crossover, sizing=lambda params: FixedFractional(params.fast / 30))
    config = SimulationConfig(sizing=own, max_leverage=leverage)
    assert config_for(config, sized, sized.parse({"fast": 9})).sizing == expected
    assert config_of_all(config, sized) == config


def test_an_expression_of_one_number_is_sized_as_the_number() -> None:
    crossover = strategy_of("ema_crossover")
    sized = replace(crossover, sizing=lambda params: ByExpression(f"{params.fast} / 3"))
    found = config_for(SimulationConfig(max_leverage=2.0), sized, sized.parse({"fast": 9}))
    assert found.sizing == FixedFractional(2.0)


@pytest.mark.parametrize(("leverage", "fraction"), [(2.0, 1.0), (0.4, 0.4)])
def test_without_any_sizing_an_entry_uses_all_that_the_leverage_allows(
    leverage: float, fraction: float
) -> None:
    crossover, config = strategy_of("ema_crossover"), SimulationConfig(max_leverage=leverage)
    assert config_for(config, crossover, crossover.parse({})).sizing == FixedFractional(fraction)
    assert config_of_all(config, crossover).sizing == FixedFractional(fraction)


def test_runs_with_equal_rules_share_them() -> None:
    one, other = PositionRules(StopRules()), PositionRules(StopRules(stop_loss=0.1), 3)
    rules = RulesOfRuns.by_run([one, other, one], n_assets=2)
    assert rules.distinct == (one, other)
    assert rules.of.tolist() == [[0, 0], [1, 1], [0, 0]]
