"""Every metric of the dictionary, against other people's code or a formula in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.metrics.daily import DAILY_STATISTICS, daily_statistics
from backtest_pipeline.simulation.pandas_objects.single import simulate
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import FixedFractional
from backtest_pipeline_tests.simulation.markets import (
    average_crosses,
    bars_of,
    flags,
    random_events,
    random_panel,
    real_bars,
)

NO_COSTS = CostModel(0.0, 0.0)


def exactly(value: float) -> Any:
    """Equal but for the last digits of a double."""
    return pytest.approx(value, rel=1e-12, abs=1e-14)


def statistics(
    equity: Sequence[float] | np.ndarray,
    benchmark: Sequence[float] | np.ndarray | None = None,
    days: Sequence[int] | None = None,
) -> dict[str, float]:
    """The daily statistics of one column."""
    values = np.asarray(equity, np.float64)
    table = daily_statistics(
        values[None, :],
        np.ones(len(values)) if benchmark is None else np.asarray(benchmark, np.float64),
        np.array([0, len(values)]),
        DAY_US * (np.arange(len(values)) if days is None else np.asarray(days, np.int64)),
    )
    return dict(zip(DAILY_STATISTICS, table[0].tolist(), strict=True))


def empyrical_of(equity: np.ndarray, benchmark: np.ndarray) -> dict[str, float]:
    """The same figures by empyrical-reloaded, from daily marks."""
    import empyrical

    r, b = equity[1:] / equity[:-1] - 1, benchmark[1:] / benchmark[:-1] - 1
    year: Any = {"annualization": 365}
    alpha, beta = empyrical.alpha_beta_aligned(r, b, **year)
    figures: dict[str, Any] = {
        "total_return": empyrical.cum_returns_final(r),
        "cagr": empyrical.cagr(r, **year),
        "annual_volatility": empyrical.annual_volatility(r, **year),
        "sharpe": empyrical.sharpe_ratio(r, **year),
        "sortino": empyrical.sortino_ratio(r, **year),
        "max_drawdown": empyrical.max_drawdown(r),
        "omega": empyrical.omega_ratio(r, annualization=1),
        "value_at_risk_95": empyrical.value_at_risk(r),
        "expected_shortfall_95": empyrical.conditional_value_at_risk(r),
        "alpha": alpha,
        "beta": beta,
        "benchmark_return": empyrical.cum_returns_final(b),
        "information_ratio": empyrical.excess_sharpe(r, b) * math.sqrt(365),
        "tracking_error": np.std(r - b, ddof=1) * math.sqrt(365),
    }
    return {name: float(value) for name, value in figures.items()}


def daily_marks(equity: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """The starting equity and each UTC day's end, slowly, by pandas."""
    marks = pd.Series(equity, pd.to_datetime(ts, unit="us"))
    days = marks.resample("D").last().ffill()
    first_day_goes_on = len(ts) > 1 and ts[1] // DAY_US == ts[0] // DAY_US
    return np.concatenate(([equity[0]], days.to_numpy())) if first_day_goes_on else days.to_numpy()


def assert_agrees_with_empyrical(result: BatchResult, rel: float = 1e-12) -> None:
    panel = result.panel
    for column in range(result.equity.shape[0] * len(panel.assets)):
        run, asset = divmod(column, len(panel.assets))
        rows = slice(int(panel.offsets[asset]), int(panel.offsets[asset + 1]))
        equity = daily_marks(result.equity[run, rows], panel.ts[rows])
        theirs = empyrical_of(equity, daily_marks(result.benchmark[rows], panel.ts[rows]))
        at_bars = result.equity[run, rows]
        of_bars = empyrical_of(at_bars, at_bars)
        theirs["max_drawdown"] = of_bars["max_drawdown"]
        if panel.timeframe.days > 1:
            theirs |= {
                name: of_bars[name] for name in ("value_at_risk_95", "expected_shortfall_95")
            }
        if len(equity) - 1 < 90:
            theirs["cagr"] = theirs["alpha"] = math.nan
        theirs["calmar"] = theirs["cagr"] / -theirs["max_drawdown"]
        for name, value in theirs.items():
            ours = result.metrics[name][column]
            expected = pytest.approx(value, rel=rel, abs=1e-13, nan_ok=True)
            assert ours == expected, (name, panel.assets[asset])


@pytest.mark.parametrize(
    ("timeframe_name", "lengths", "holes"),
    [
        ("1D", (400, 90), 0.0),
        ("1D", (300, 300), 0.2),
        ("1H", (2_000, 777), 0.05),
        ("4H", (600,), 0.0),
        ("1W", (120, 60), 0.0),
        ("3D", (150,), 0.1),
    ],
)
def test_random_series_agree_with_empyrical(
    timeframe_name: str, lengths: tuple[int, ...], holes: float
) -> None:
    rng = np.random.default_rng(len(lengths) + lengths[0])
    panel = random_panel(rng, lengths, 0.02, timeframe_name, holes)
    config = SimulationConfig(direction=Direction.LONG)
    result = simulate_batch(panel, random_events(rng, 3, panel), config)
    assert_agrees_with_empyrical(result)


@pytest.mark.parametrize(
    ("file", "symbol", "timeframe_name"),
    [
        ("binance_daily.parquet", "BTCUSDT", "1D"),
        ("binance_daily.parquet", "SOLUSDT", "1D"),
        ("binance_hourly.parquet", "ETHUSDT", "1H"),
    ],
)
def test_real_series_agree_with_empyrical(
    test_data: Path, file: str, symbol: str, timeframe_name: str
) -> None:
    bars = real_bars(test_data, file, symbol).tail(9_000)
    panel = Panel.stack(timeframe(timeframe_name), {symbol: bars})
    up, down = average_crosses(bars, 10, 30)
    events = (1 * up + 2 * down).to_numpy().astype(np.uint8)[None, :]
    # Growth over many thousand bars is a long product, and empyrical multiplies it out.
    assert_agrees_with_empyrical(simulate_batch(panel, events, SimulationConfig()), rel=1e-11)


def test_the_reference_returns_have_the_reference_ratios() -> None:
    returns = [0.01, 0.10, -0.04, 0.02, 0.03, 0.02, 0.01, -0.10]
    stats = statistics(np.cumprod([100.0, *(1 + r for r in returns)]))
    assert stats["sharpe"] == pytest.approx(2.0746675114, abs=5e-11)
    assert stats["sortino"] == pytest.approx(3.1357573468, abs=5e-11)
    assert stats["annual_volatility"] == pytest.approx(1.0995737811, abs=5e-11)
    assert stats["max_drawdown"] == pytest.approx(-0.1, rel=1e-12)
    # The same figures were published for 252 days a year.
    assert stats["sharpe"] * math.sqrt(252 / 365) == pytest.approx(1.7238613961706866, rel=1e-12)


def test_skew_and_kurtosis_are_those_of_scipy() -> None:
    from scipy.stats import kurtosis, skew

    rng = np.random.default_rng(5)
    equity = np.cumprod(1 + rng.standard_t(4, 500) * 0.01)
    r = equity[1:] / equity[:-1] - 1
    stats = statistics(equity)
    assert stats["skew"] == pytest.approx(skew(r), rel=1e-11)
    assert stats["kurtosis"] == pytest.approx(kurtosis(r, fisher=False), rel=1e-11)


@pytest.mark.parametrize(
    ("equity", "days"),
    [
        ([100, 101, 102, 103], 0),
        ([100, 100, 100], 0),
        ([100, 99, 100, 101], 2),
        ([100, 101, 99, 98, 101, 102], 3),
        ([100, 101, 99, 98, 97], 3),
        ([100, 101, 101, 100, 101], 2),
        ([100, 90, 100, 80, 85, 90, 95], 4),
    ],
)
def test_a_drawdown_lasts_from_its_peak_until_the_peak_is_reached_again(
    equity: list[float], days: int
) -> None:
    assert statistics(equity)["max_drawdown_duration_days"] == days


def test_days_without_a_bar_repeat_the_last_equity() -> None:
    sparse = statistics([100, 110, 99, 120], [1, 2, 3, 4], days=[0, 1, 4, 5])
    full = statistics([100, 110, 110, 110, 99, 120], [1, 2, 2, 2, 3, 4])
    # Nobody knows how the equity stood on these days: its peak was last seen before them.
    assert sparse | {"max_drawdown_duration_days": 2} == pytest.approx(full, nan_ok=True, abs=0)
    assert sparse["max_drawdown_duration_days"] == 4


def test_what_is_earned_within_the_first_day_counts() -> None:
    opens = [100.0, 100.0, *([110.0] * 46)]
    bars = bars_of(opens, freq="h")
    result = simulate(bars, flags(bars, 0), flags(bars, 40), costs=NO_COSTS)
    assert result.metrics["total_return"] == pytest.approx(0.1, rel=1e-12)
    assert result.metrics["benchmark_return"] == pytest.approx(0.1, rel=1e-12)


def test_a_loss_within_the_first_day_is_a_drawdown() -> None:
    bars = bars_of([100.0, 100.0, *([80.0] * 46)], freq="h")
    result = simulate(bars, flags(bars, 0), flags(bars, 40), costs=NO_COSTS)
    assert result.metrics["max_drawdown"] == pytest.approx(-0.2, rel=1e-12)


def test_trade_figures_are_those_of_the_trade_log() -> None:
    rng = np.random.default_rng(11)
    panel = random_panel(rng, (200, 150), 0.02)
    events = random_events(rng, 2, panel)
    result = simulate_batch(panel, events, SimulationConfig())
    for column in range(4):
        log = result.trades.take(np.flatnonzero(result.trades.column == column))
        trades = list(
            zip(
                log.pnl.tolist(),
                log.pnl_pct.tolist(),
                ((log.exit_ts - log.entry_ts) / DAY_US).tolist(),
                log.is_open.tolist(),
                strict=True,
            )
        )
        closed = [t for t in trades if not t[3]]
        won = [t for t in closed if t[0] > 0]
        lost = [t for t in closed if t[0] <= 0]
        by_hand = {
            "trade_count": len(trades),
            "win_rate": len(won) / len(closed),
            "profit_factor": sum(t[0] for t in won) / -sum(t[0] for t in lost),
            "expectancy": sum(t[1] for t in closed) / len(closed),
            "avg_win": sum(t[1] for t in won) / len(won),
            "avg_loss": sum(t[1] for t in lost) / len(lost),
            "avg_holding_days": sum(t[2] for t in closed) / len(closed),
            "fees_paid": sum(log.fees.tolist()),
            "slippage_cost": sum(log.slippage_cost.tolist()),
        }
        for name, value in by_hand.items():
            assert result.metrics[name][column] == pytest.approx(value), name


def test_one_round_trip_has_the_figures_of_the_pencil() -> None:
    bars = bars_of([100, 100, 120, 150, 150], closes=[100, 110, 130, 150, 150])
    result = simulate(
        bars, flags(bars, 0), flags(bars, 2), costs=CostModel(0.0, 100.0), initial_cash=1_000.0
    )
    trade = result.trades.iloc[0]
    size = 1_000 / 101
    assert trade["entry_price"] == 101.0
    assert trade["exit_price"] == 148.5
    assert trade["size"] == exactly(size)
    assert trade["pnl"] == exactly(size * 47.5)
    assert trade["bars_held"] == 2
    assert trade["mae"] == exactly(100 / 101 - 1)
    assert trade["mfe"] == exactly(148.5 / 101 - 1)
    figures = result.metrics
    mean_equity = (1_000 + size * 110 + size * 130 + 2 * size * 148.5) / 5
    assert figures["slippage_cost"] == exactly(size * 2.5)
    assert figures["turnover"] == exactly((size * 101 + size * 148.5) / mean_equity / 4 * 365)
    assert figures["exposure"] == 2 / 5
    assert figures["avg_holding_days"] == 2.0
    assert figures["win_rate"] == 1.0
    assert figures["fees_paid"] == 0.0


def test_the_benchmark_pays_the_same_costs() -> None:
    bars = bars_of([100, 100, 120])
    costs = CostModel(50.0, 20.0)
    result = simulate(bars, flags(bars), flags(bars), costs=costs)
    assert result.benchmark.tolist()[-1] == exactly(10_000 / (100 * 1.002 * 1.005) * 120)


def test_the_benchmark_is_fully_invested_whatever_the_runs_size_and_side() -> None:
    bars = bars_of([100, 100, 120])
    never = flags(bars)
    result = simulate(
        bars, never, never, flags(bars, 0), never, costs=NO_COSTS, sizing=FixedFractional(0.1)
    )
    assert result.metrics["benchmark_return"] == exactly(0.2)
    assert result.metrics["total_return"] == exactly(-0.02)


def test_the_benchmark_is_long_even_of_a_run_that_may_only_sell() -> None:
    panel = random_panel(np.random.default_rng(2), [30])
    events = np.zeros((1, 30), np.uint8)
    benchmarks = [
        simulate_batch(panel, events, SimulationConfig(direction=direction)).benchmark
        for direction in Direction
    ]
    assert len({tuple(benchmark) for benchmark in benchmarks}) == 1
    assert benchmarks[0][-1] != benchmarks[0][0]


def test_a_trade_that_breaks_even_is_not_won() -> None:
    bars = bars_of([100.0, 100.0, 120.0, 100.0, 100.0])
    result = simulate(bars, flags(bars, 0), flags(bars, 2), costs=NO_COSTS)
    assert result.trades["pnl"].tolist() == [0.0]
    assert result.metrics["win_rate"] == 0.0
    assert result.metrics["avg_loss"] == 0.0
    assert "profit_factor" in result.undefined


def test_bars_stamped_a_day_apart_are_days() -> None:
    ts = 19_723 * DAY_US + DAY_US * np.arange(1, 5) - CLOSE_STAMP_US
    assert np.array_equal(daily_marks(np.array([1.0, 2, 3, 4]), ts), [1, 2, 3, 4])


@pytest.mark.parametrize("step", [1e-6, 1e-3, 0.1])
def test_equal_returns_have_no_ratio_however_small_they_are(step: float) -> None:
    stats = statistics(10_000.0 * (1 + step) ** np.arange(300))
    assert all(
        np.isnan(stats[name])
        for name in ("annual_volatility", "sharpe", "value_at_risk_95", "skew", "kurtosis")
    )


def test_a_benchmark_that_stands_still_leaves_the_tracking_error_defined() -> None:
    equity = [100.0, 101.0, 99.0, 104.0]
    stats = statistics(equity, [50.0] * 4)
    assert np.isnan(stats["beta"])
    assert np.isnan(stats["alpha"])
    assert stats["tracking_error"] == exactly(stats["annual_volatility"])
    assert stats["information_ratio"] == exactly(stats["sharpe"])
