"""Sweeps against single runs, against vectorbt's own indicators, and in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.simulation import sweep as sweeping
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.simulation.rules import config_for
from backtest_pipeline.strategies.grid import ParameterGrid, parameter_grid
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.rules.rule_file import from_toml
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.simulation.markets import random_panel

SMALL: dict[str, dict[str, Any]] = {
    "ema_crossover": {"fast": [3, 9], "slow": [5, 21, 40]},
    "rsi_mean_revert": {"lower": [30, 40.5], "upper": [55, 70], "period": [5, 14]},
    "atr_breakout": {"lookback": [5, 20], "trail_mult": [1, 2.5], "atr_period": [7, 14]},
    "bollinger_revert": {"period": [10, 20], "width": [1.5, 2]},
    "macd_crossover": {"fast": [5, 12], "slow": [10, 26], "signal": [5, 9]},
}


@pytest.fixture(scope="module")
def panel() -> Panel:
    bars = random_panel(np.random.default_rng(7), [400])
    return build_features(bars.with_columns({"volume": np.ones(len(bars))}))


def grid_of(name: str, **values: Any) -> ParameterGrid:
    return parameter_grid(strategy_of(name), values or SMALL[name], 1_000)


def alone(panel: Panel, grid: ParameterGrid, combination: tuple[Any, ...]) -> np.ndarray:
    """One combination's events, from an indicator that knows no other."""
    indicator = sweeping.strategy_indicator(grid.strategy, panel, grid.names)
    close = pd.Series(panel["close"], utc_index(panel.ts))
    run = indicator.run(close, *combination)
    return np.asarray(run.events).reshape(1, -1)


@pytest.mark.parametrize("name", SMALL)
def test_each_combination_has_the_metrics_of_its_run_alone(panel: Panel, name: str) -> None:
    grid, config = grid_of(name), SimulationConfig(CostModel(7.0, 3.0), direction=Direction.BOTH)
    table = sweeping.sweep(panel, grid, config)
    assert tuple(table.index.names) == grid.names
    assert list(table.index) == list(grid.combinations)
    for position, combination in enumerate(grid.combinations):
        params = grid.strategy.parse(dict(zip(grid.names, combination, strict=True)))
        own = config_for(config, grid.strategy, params)
        single = simulate_batch(panel, alone(panel, grid, combination), own).metrics
        expected = [float(single[metric][0]) for metric in table.columns]
        np.testing.assert_array_equal(table.iloc[position].to_numpy(float), expected)
    assert table["trade_count"].to_numpy().max() > 3
    assert len(np.unique(table["total_return"])) > 1


SIZED = b"""
name = "sized"
long_entry = "close > ema_21"
long_exit = "close < ema_21"
[params]
risk = { default = 0.02, grid = [0.005, 0.01, 0.02] }
days = { default = 14, grid = [5, 14] }
[sizing]
"""


@pytest.mark.parametrize(
    "sizing",
    [
        'fraction = "5 * risk"',
        'mode = "atr"\nrisk = "risk"',
        'fraction = "risk / (atr(days) / close)"',
    ],
)
def test_each_combination_is_sized_by_its_own_parameters(panel: Panel, sizing: str) -> None:
    strategy = from_toml(SIZED + sizing.encode(), "sized.toml")
    grid, config = parameter_grid(strategy, {}, most=6), SimulationConfig(CostModel(7.0, 3.0))
    keep = np.arange(len(panel)) >= 40
    table = sweeping.sweep(panel, grid, config, keep=keep)
    for position, combination in enumerate(grid.combinations):
        params = strategy.parse(dict(zip(grid.names, combination, strict=True)))
        own = config_for(config, strategy, params)
        bars = with_config_columns(panel, own).take(keep)
        events = np.ascontiguousarray(alone(panel, grid, combination)[:, keep])
        single = simulate_batch(bars, events, own).metrics
        expected = [float(single[metric][0]) for metric in table.columns]
        np.testing.assert_array_equal(table.iloc[position].to_numpy(float), expected)
    assert len(np.unique(table["total_return"])) >= 3


def test_blocks_leave_no_trace(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, config = grid_of("macd_crossover"), SimulationConfig()
    whole = sweeping.sweep(panel, grid, config)
    monkeypatch.setattr(sweeping, "BATCH_BYTES", 4 * 8 * len(panel))
    told: list[tuple[int, int]] = []
    blocked = sweeping.sweep(panel, grid, config, listen=lambda done, n: told.append((done, n)))
    pd.testing.assert_frame_equal(blocked, whole, check_exact=True)
    assert told == [(0, 6), (4, 6), (6, 6)]


def test_indicators_know_the_rows_before_those_that_are_traded(panel: Panel) -> None:
    grid, config = grid_of("ema_crossover", fast=[3, 9], slow=[60, 90]), SimulationConfig()
    keep = np.arange(len(panel)) >= 100
    table = sweeping.sweep(panel, grid, config, keep=keep)
    events = alone(panel, grid, (9, 90))
    window = simulate_batch(panel.take(keep), np.ascontiguousarray(events[:, keep]), config)
    assert table.loc[(9, 90), "total_return"] == window.metrics["total_return"][0]
    cold = sweeping.sweep(panel.take(keep), grid, config)
    assert not table["total_return"].equals(cold["total_return"])


def test_an_indicator_is_computed_once_however_many_combinations_read_it(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backtest_pipeline.market.features import rolling

    computed: list[int] = []
    original = rolling.ema

    def counted(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
        computed.append(n)
        return original(x, offsets, n)

    monkeypatch.setattr(rolling, "ema", counted)
    grid = grid_of("ema_crossover", fast=[3, 4, 5], slow=[30, 31, 32])
    sweeping.sweep(panel, grid, SimulationConfig())
    assert sorted(computed) == [3, 4, 5, 30, 31, 32]


def test_bollinger_events_are_the_crossings_of_vectorbt_s_own_bands(panel: Panel) -> None:
    import vectorbt as vbt

    periods, widths = [10, 20, 35], [1.1, 1.6, 2.0]
    grid = grid_of("bollinger_revert", period=periods, width=widths)
    close = pd.Series(panel["close"], utc_index(panel.ts))
    bands: Any = vbt.BBANDS.run(close, window=periods, alpha=widths, param_product=True)
    at_close, middle = close.to_numpy()[:, None], bands.middle.to_numpy()
    wanted = {
        LONG_ENTRY: bands.close_crossed_above(bands.lower).to_numpy(),
        LONG_EXIT: at_close >= middle,
        SHORT_ENTRY: bands.close_crossed_below(bands.upper).to_numpy(),
        SHORT_EXIT: at_close <= middle,
    }
    for column, combination in enumerate(grid.combinations):
        events = alone(panel, grid, combination)[0]
        for bit, holds in wanted.items():
            assert np.array_equal((events & bit) > 0, holds[:, column]), (combination, bit)
