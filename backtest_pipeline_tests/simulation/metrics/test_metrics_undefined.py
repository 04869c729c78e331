"""Metrics that are undefined, each with its reason: never infinity, 0 or a sentinel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES, METRICS, undefined_reasons
from backtest_pipeline.simulation.pandas_objects.single import simulate
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.simulation.markets import (
    bars_of,
    flags,
    random_panel,
)

NO_COSTS = CostModel(0.0, 0.0)


def undefined_of(result: BatchResult) -> dict[str, str]:
    return undefined_reasons({name: float(v[0]) for name, v in result.metrics.items()})


DAILY_RATIOS = {"annual_volatility", "sharpe", "value_at_risk_95", "skew", "kurtosis"}


def test_a_run_without_trades_has_no_ratios() -> None:
    bars = bars_of([100, 101, 99, 105])
    result = simulate(bars, flags(bars), flags(bars))
    assert result.metrics["total_return"] == 0.0
    assert result.metrics["trade_count"] == 0.0
    assert result.metrics["exposure"] == 0.0
    assert result.metrics["fees_paid"] == 0.0
    without = {"sortino", "omega", "calmar", "win_rate", "profit_factor", "expectancy", "avg_win"}
    assert (DAILY_RATIOS | without) <= result.undefined.keys()
    assert all(result.undefined.values())
    # It differs from its benchmark, though.
    assert result.metrics["tracking_error"] is not None


@pytest.mark.parametrize("length", [0, 1])
def test_hardly_any_bars_leave_everything_undefined_or_nothing(length: int) -> None:
    panel = random_panel(np.random.default_rng(0), [length])
    events = np.full((1, length), 1, np.uint8)
    result = simulate_batch(panel, events, SimulationConfig())
    nothing = {"trade_count", "fees_paid", "slippage_cost", "funding_paid"}
    if length == 1:
        nothing |= {
            *("total_return", "max_drawdown", "max_drawdown_duration_days"),
            *("benchmark_return", "exposure"),
        }
    assert {name for name in METRIC_NAMES if not np.isnan(result.metrics[name][0])} == nothing
    assert all(result.metrics[name][0] == 0.0 for name in nothing)
    assert all(undefined_of(result).values())


def test_a_total_loss_is_a_number_and_what_follows_is_not_infinite() -> None:
    bars = bars_of([100, 100, 150, 400, 100, 50, 60])
    never = flags(bars)
    result = simulate(bars, never, never, flags(bars, 0), never, costs=NO_COSTS)
    assert result.metrics["total_return"] == -1.0
    assert result.metrics["cagr"] is None
    assert result.metrics["max_drawdown"] == -1.0
    assert result.metrics["profit_factor"] == 0.0
    assert "avg_win" in result.undefined
    assert all(value is None or math.isfinite(value) for value in result.metrics.values())


def test_a_run_that_never_loses_has_no_ratio_of_losses() -> None:
    bars = bars_of([100, 100, 110, 120, 130])
    result = simulate(bars, flags(bars, 0), flags(bars, 3), costs=NO_COSTS)
    assert {"sortino", "omega", "calmar", "profit_factor", "avg_loss"} <= result.undefined.keys()
    assert result.metrics["sharpe"] is not None
    assert result.metrics["win_rate"] == 1.0


def test_a_run_that_is_its_benchmark_has_no_information_ratio() -> None:
    bars = bars_of([100, 101, 99, 105, 103])
    result = simulate(bars, flags(bars, 0), flags(bars))
    assert result.metrics["beta"] == pytest.approx(1.0, rel=1e-12)
    assert result.metrics["tracking_error"] == 0.0
    assert "information_ratio" in result.undefined


def test_growth_beyond_all_numbers_is_undefined_and_not_infinite() -> None:
    bars = bars_of([1.0, 1.0, 99.0], freq="D")
    result = simulate(bars, flags(bars, 0), flags(bars), costs=NO_COSTS)
    assert result.metrics["cagr"] is None
    assert "double" in result.undefined["cagr"]


def test_every_metric_that_can_be_undefined_says_why() -> None:
    always = {metric.name for metric in METRICS if not metric.undefined}
    assert always == {"trade_count", "fees_paid", "slippage_cost", "funding_paid"}
    assert len(set(METRIC_NAMES)) == len(METRICS)
