"""The worked example of docs/rules.md on sizing, run, and its sizes computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

import backtest_pipeline as bp
from backtest_pipeline.market.features import build_features
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.simulation.pandas_objects.frames import bars_panel
from backtest_pipeline.simulation.rules import config_for
from backtest_pipeline.strategies.rules import from_toml
from backtest_pipeline.strategies.strategy import conditions_of
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.strategies.rules.documented import BY_NAME


@pytest.mark.parametrize("delay", [0, 2])
def test_each_trade_has_the_size_of_its_signal_s_bar(delay: int) -> None:
    strategy = from_toml(BY_NAME["even_risk"].encode(), "rules.md")
    params = strategy.parse({"risk": 0.02})
    free = CostModel(fee_bps=0.0, slippage_bps=0.0)
    config = SimulationConfig(free, direction=Direction.LONG, max_leverage=5, delay_bars=delay)
    panel = build_features(bars_panel(bp.load_bars(asset="S-ALPHA"), "1D"))
    events = condition_bits(conditions_of(strategy, panel, params))[None, :]
    result = simulate_batch(panel, events, config_for(config, strategy, params))
    trades = result.trades
    assert len(trades) > 10
    entry = trades.entry_bar
    signal = entry - 1 - delay
    equity = np.append(config.initial_cash, result.equity[0])[entry]
    fraction = 0.02 / (panel["atr_14"][signal] / panel["close"][signal])
    np.testing.assert_allclose(trades.size * panel["open"][entry], fraction * equity, rtol=1e-12)
    assert np.ptp(fraction) > 0.05
