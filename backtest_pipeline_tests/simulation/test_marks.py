"""Equity between the closes of bars longer than a day, against an account kept by hand, day by day.

The account by hand goes forward from the close before; the product goes back from the close after.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline import explore, robustness, walk_forward
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.engine import EXIT_REASONS
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.simulation.pandas_objects.single import SimulationResult, simulate
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.assumptions import configs, seeds, volatilities
from backtest_pipeline_tests.simulation.markets import (
    flags,
    random_events,
    random_panel,
    random_rates,
    real_bars,
)

FREE = CostModel(0.0, 0.0)


def _days(*closes: float) -> pd.DataFrame:
    """Daily bars from Monday 2024-01-01 on that open where the day before closed."""
    close = np.array(closes)
    open_ = np.concatenate((close[:1], close[:-1]))
    stamps = pd.date_range("2024-01-01", periods=len(close), tz="UTC") + pd.Timedelta(
        "23:59:59.999"
    )
    prices = {"high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
    return pd.DataFrame({"open": open_, **prices}, stamps)


def _weeks(days: pd.DataFrame) -> pd.DataFrame:
    how = {"open": "first", "high": "max", "low": "min", "close": "last"}
    return days.groupby(np.arange(len(days)) // 7).agg(how).set_index(days.index[6::7])


def _marked(days: pd.DataFrame, stops: StopRules, costs: CostModel = FREE) -> SimulationResult:
    """A long from the second week's open on."""
    weeks = _weeks(days)
    entries, never = flags(weeks, 0), flags(weeks)
    return simulate(weeks, entries, never, stops=stops, costs=costs, daily=days, initial_cash=100.0)


def test_a_week_that_is_stopped_on_wednesday_is_flat_from_wednesday_on() -> None:
    second = (110.0, 105.0, 88.0, 93.0, 140.0, 150.0, 160.0)
    days = _days(*[100.0] * 7, *second, *[160.0] * 7)
    result = _marked(days, StopRules(stop_loss=0.1), CostModel(100.0, 0.0))
    units = 100 / 1.01 / 100  # all cash after a fee of 1 %
    expected = [100.0] + [units * price - 0.01 * units * 100 for price in (110.0, 105.0)]
    stopped = 100 - units * 100 - units + units * 90 * 0.99
    expected = [100.0, *(100 - units * 101 + units * price for price in (110.0, 105.0)), stopped]
    assert result.equity.iloc[:4].tolist() == pytest.approx(expected, rel=1e-12)
    assert (result.equity.iloc[3:] == result.equity.iloc[-1]).all()
    assert (result.exposure.iloc[1:3] > 0.9).all()
    assert (result.exposure.iloc[3:] == 0).all()
    assert result.equity.index.tolist() == days.index[6:].tolist()
    assert result.trades["exit_reason"].tolist() == ["stop_loss"]


def test_a_target_is_reached_by_a_high_and_a_gap_ends_at_the_open() -> None:
    up = _days(*[100.0] * 7, 101.0, 99.0, 125.0, 90.0, 91.0, 92.0, 93.0)
    reached = _marked(up, StopRules(take_profit=0.2))
    assert reached.equity.tolist() == pytest.approx([100, 101, 99, 120, 120, 120, 120, 120])
    down = _days(*[100.0] * 14, *[100.0] * 7)
    down.iloc[14:, :] = 50.0
    gapped = _marked(down, StopRules(stop_loss=0.1))
    assert gapped.equity.tolist() == pytest.approx([100.0] * 8 + [50.0] * 7)


def test_statistics_are_of_the_days() -> None:
    """-20 % within a month that closes unchanged, and a tail that no monthly mark shows."""
    rng = np.random.default_rng(3)
    days = _days(*100 * np.exp(np.cumsum(rng.normal(0, 0.03, 350))))
    weeks = _weeks(days)
    entries, exits = flags(weeks, 0, 20), flags(weeks, 12, 40)
    result = simulate(weeks, entries, exits, daily=days, stops=StopRules(stop_loss=0.15))
    alone = simulate(weeks, entries, exits, stops=StopRules(stop_loss=0.15))
    equity, r = result.equity, result.equity.pct_change().dropna()
    assert len(r) == 343
    expected = {
        "sharpe": r.mean() / r.std() * 365**0.5,
        "annual_volatility": r.std() * 365**0.5,
        "value_at_risk_95": r.quantile(0.05),
        "expected_shortfall_95": r.nsmallest(18).mean(),
        "kurtosis": ((r - r.mean()) ** 4).mean() / r.var(ddof=0) ** 2,
        "max_drawdown": (equity / equity.cummax() - 1).min(),
        "benchmark_return": result.benchmark.iloc[-1] / result.benchmark.iloc[0] - 1,
        "beta": r.cov(result.benchmark.pct_change()) / result.benchmark.pct_change().var(),
    }
    found = {name: result.metrics[name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-9)
    assert result.metrics["max_drawdown"] == pytest.approx(result.drawdown.min(), rel=1e-12)
    assert result.metrics["total_return"] == alone.metrics["total_return"]
    pd.testing.assert_frame_equal(result.trades, alone.trades)
    for marked, of_bars in ((result.equity, alone.equity), (result.benchmark, alone.benchmark)):
        assert marked.reindex(of_bars.index).tolist() == of_bars.tolist()


@given(seeds, volatilities, configs(), st.sampled_from(["2D", "1W", "1M"]), st.booleans())
def test_every_day_is_what_the_account_by_hand_has(
    seed: int, volatility: float, config: SimulationConfig, tf: str, dated: bool
) -> None:
    rng = np.random.default_rng(seed)
    days = random_panel(rng, [60, 0, 90], volatility / 2, holes=rng.choice([0.0, 0.1]))
    days = days.with_columns({"volume": np.ones(len(days))})
    bars = with_config_columns(resample(days, timeframe(tf)), config)
    table = random_rates(rng, days, 0.001) if dated else None
    rates = None if table is None else FundingRates.of(table)
    events = random_events(rng, 3, bars)
    alone = simulate_batch(bars, events, config, funding=rates)
    result = simulate_batch(bars, events, config, funding=rates, marks=marks_of(bars, days))
    at_close = np.isin(result.marks.ts, bars.ts)
    for name in ("entry_ts", "exit_ts", "exit_price", "pnl", "exit_reason"):
        assert np.array_equal(getattr(result.trades, name), getattr(alone.trades, name))
    assert np.array_equal(result.equity[:, result.marks.day < 0], alone.equity)
    assert np.array_equal(result.benchmark[result.marks.day < 0], alone.benchmark)
    assert at_close[result.marks.day < 0].all()
    for column in range(3 * len(bars.assets)):
        _assert_by_hand(result, column, alone.equity, days, config, table)


def _assert_by_hand(
    result: BatchResult,
    column: int,
    at_closes: np.ndarray,
    days: Panel,
    config: SimulationConfig,
    rates: dict[str, pd.Series] | None,
) -> None:
    bars, trades, marks = result.panel, result.trades, result.marks
    run, asset = divmod(column, len(bars.assets))
    rows = slice(bars.offsets[asset], bars.offsets[asset + 1])
    opens = bars.timeframe.period_bounds(bars.ts[rows])[0]
    own = np.flatnonzero(trades.column == column)
    daily = days.frame(bars.assets[asset])
    paid_before = config.initial_cash + np.concatenate(([0], np.cumsum(trades.pnl[own])))
    for m in range(marks.offsets[asset], marks.offsets[asset + 1]):
        if marks.day[m] < 0:
            continue
        now = marks.ts[m]
        bar = int(np.searchsorted(bars.ts[rows], now))
        within = daily[(daily.index > utc_index(opens[bar : bar + 1])[0])]
        within = within[within.index <= utc_index(marks.ts[m : m + 1])[0]]
        expected = paid_before[np.sum(trades.exit_ts[own] <= opens[bar])]
        for n, i in enumerate(own):
            if trades.entry_ts[i] > now or (
                not trades.is_open[i] and trades.exit_ts[i] <= opens[bar]
            ):
                continue
            expected = _held_worth(
                trades, i, bars, rows, bar, at_closes[run], paid_before[n], config, within, rates
            )
            ends = not trades.is_open[i] and trades.exit_ts[i] == bars.ts[rows][bar]
            if ends and _reached(trades, i, within, config):
                expected = paid_before[n + 1]
        # What is left of nearly nothing is all rounding.
        assert result.equity[run, m] == pytest.approx(
            max(expected, 0.0), rel=1e-7, abs=1e-7 * config.initial_cash
        )


def _held_worth(trades, i, bars, rows, bar, at_closes, cash, config, within, rates) -> float:
    units = trades.side[i] * trades.size[i]
    closes, tf = bars["close"][rows], bars.timeframe
    start = tf.period_bounds(bars.ts[rows])[0][bar]
    if trades.entry_ts[i] == start:
        fee = trades.size[i] * trades.entry_price[i] * config.costs.fee_bps / 1e4
        worth, before, hole = cash - fee, trades.entry_price[i], 0.0
    else:
        worth, before = at_closes[rows][bar - 1], closes[bar - 1]
        end = tf.period_bounds(bars.ts[rows])[1][bar - 1]
        hole = units * bars["open"][rows][bar] * _charged(config, rates, bars, rows, end, start)
    price, paid = within["close"].iloc[-1], 0.0
    for stamp, close in within["close"].items():
        day = int(stamp.value // 1000 // DAY_US * DAY_US)
        paid += units * close * _charged(config, rates, bars, rows, day, day + DAY_US)
    return worth + units * (price - before) - hole - paid


def _charged(config, rates, bars, rows, start, end) -> float:
    """Fraction that a long pays in a stretch of time."""
    if rates is None:
        return config.costs.funding_bps_day / 1e4 * (end - start) / DAY_US
    series = rates[bars.assets[int(np.searchsorted(bars.offsets, rows.start, "right")) - 1]]
    series = series.set_axis(series.index.round("min"))
    low, high = utc_index(np.array([start, end]))
    return float(series[(series.index > low) & (series.index <= high)].sum())


def _reached(trades, i, within, config) -> bool:
    side, reason = trades.side[i], EXIT_REASONS[trades.exit_reason[i]]
    slip = 0.0 if reason == "liquidation" else config.costs.slippage_bps / 1e4
    level = trades.exit_price[i] / (1 - side * slip)
    by_high = (side > 0) == (reason == "take_profit")
    if by_high:
        return bool((within["high"] >= level * (1 - 1e-9)).any())
    return bool((within["low"] <= level * (1 + 1e-9)).any())


def test_days_that_do_not_fit_their_bars_mark_nothing() -> None:
    days = _days(*range(100, 128))
    weeks = _weeks(days)
    signals = flags(weeks, 0), flags(weeks, 3)

    def n_marks(daily: pd.DataFrame) -> int:
        return len(simulate(weeks, *signals, daily=daily).equity)

    assert n_marks(days) == 22
    assert n_marks(days.iloc[3:]) == 22  # the first week is before anything is held
    assert n_marks(days.drop(days.index[9])) == 21  # one day is missing
    assert n_marks(days.iloc[:21]) == 4  # the last week has none
    wrong = days.copy()
    wrong.iloc[10, wrong.columns.get_loc("high")] *= 2
    assert n_marks(wrong) == 4
    daily_run = simulate(days, flags(days, 0), flags(days, 9), daily=days)
    assert len(daily_run.equity) == len(days)


@pytest.mark.parametrize(
    ("column", "price", "problem"),
    [
        ("close", np.nan, "close is not a positive number"),
        ("low", np.nan, "low is not a positive number"),
        ("high", np.inf, "high is not a positive number"),
        ("close", -5.0, "close is not a positive number"),
        ("close", 20.0, "open or close lies outside low..high"),
    ],
)
def test_daily_bars_are_judged_as_the_bars_are(column: str, price: float, problem: str) -> None:
    days = _days(*range(100, 128)).astype(float)
    weeks = _weeks(days)
    days.iloc[10, days.columns.get_loc(column)] = price
    with pytest.raises(InvalidInput, match=problem):
        simulate(weeks, flags(weeks, 0), flags(weeks, 3), daily=days)
    one, some = {"fast": 2, "slow": 3}, {"fast": [2], "slow": [3, 4]}
    for study, params in ((robustness, one), (explore, some), (walk_forward, some)):
        with pytest.raises(InvalidInput, match=problem):
            study(weeks.assign(volume=1.0), "ema", params, daily=days)


def test_bars_stamped_at_their_open_are_marked_at_their_stamps() -> None:
    days = _days(*range(100, 128))
    weeks = _weeks(days).set_index(days.index[::7] - pd.Timedelta("23:59:59.999"))
    result = simulate(weeks, flags(weeks, 0), flags(weeks, 2), daily=days, timeframe="1W")
    assert result.equity.index.equals(weeks.index)


def test_real_months_have_the_tail_of_their_days(test_data: Path) -> None:
    """Buying Bitcoin and holding it by the month is buying and holding it by the day."""
    days = real_bars(test_data, "binance_daily.parquet", "BTCUSDT")
    days.index = days.index + pd.Timedelta("23:59:59.999")
    panel = Panel.stack(timeframe("1D"), {"asset": days}, list(days.columns))
    months = resample(panel, timeframe("1M_CAL")).frame("asset")
    entries, never = flags(months, 0), flags(months)
    result = simulate(months, entries, never, daily=days, timeframe="1M_CAL")
    held = pd.Series(days["close"]).pct_change().loc[months.index[1] :].iloc[1:]
    own = result.returns.loc[months.index[1] :].iloc[1:]
    assert len(own) == len(held) > 2_000
    assert own.tolist() == pytest.approx(held.tolist(), rel=1e-6, abs=1e-9)
    alone = simulate(months, entries, never, timeframe="1M_CAL")
    tails = [r.metrics["value_at_risk_95"] for r in (result, alone)]
    assert tails[0] == pytest.approx(own.quantile(0.05), abs=0.002)
    assert tails[1] is not None
    assert tails[0] is not None
    assert tails[1] < 2 * tails[0] < 0
