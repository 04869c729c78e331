"""`at('1W', x)`: the last complete bar of a longer timeframe, and nothing after it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features import build_features, with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.rules import from_toml, rule_hash
from backtest_pipeline.strategies.rules.longer_bars import LongerBars
from backtest_pipeline.strategies.strategy import conditions_of
from backtest_pipeline.trading.conditions import Conditions
from backtest_pipeline_tests.market.bars import GOOD, close_stamp, panel, us

ENTRY = "at('1W', close > mean(close, 4)) and at('1W', rsi_7 > 40)"


@pytest.fixture(scope="module")
def daily() -> Panel:
    return SampleMarket().read(["S-ALPHA", "S-MU", "S-ZETA"]).panels["1D"]


def _text(entry: str) -> bytes:
    return f'name = "up"\nlong_entry = "{entry}"\nlong_exit = "not ({entry})"'.encode()


def _conditions(panel: Panel, entry: str) -> Conditions:
    strategy = from_toml(_text(entry), "up.toml")
    params = strategy.parse({})
    return conditions_of(strategy, with_indicators(panel, strategy.columns(params)), params)


def _known(days: pd.Index, weeks: pd.Index, is_true: np.ndarray, value: np.ndarray) -> np.ndarray:
    """1, 0 or NaN at each day: a condition of weeks as of the day's close."""
    flags = np.where(np.isnan(value), np.nan, is_true)
    last = np.searchsorted(weeks.to_numpy(), days.to_numpy(), side="right") - 1
    return np.where(last >= 0, flags[np.maximum(last, 0)], np.nan)


def test_each_day_knows_the_week_that_was_complete_by_its_close(daily: Panel) -> None:
    found = _conditions(daily, ENTRY)
    weekly = build_features(resample(daily, timeframe("1W")))
    for asset in daily.assets:
        weeks, days = weekly.frame(asset), daily.frame(asset)
        close, rsi = weeks["close"].to_numpy(), weeks["rsi_7"].to_numpy()
        mean = np.array([*[np.nan] * 3, *(close[i : i + 4].mean() for i in range(len(close) - 3))])
        is_high = _known(days.index, weeks.index, close > mean, mean)
        is_strong = _known(days.index, weeks.index, rsi > 40, rsi)
        rows = daily.rows_of(asset)
        np.testing.assert_array_equal(found.long_entry[rows], (is_high == 1) & (is_strong == 1))
        # Undefined is neither: what is not known yet is no reason to leave.
        np.testing.assert_array_equal(found.long_exit[rows], (is_high == 0) | (is_strong == 0))
        assert 0.1 < found.long_entry[rows].mean() < 0.9


def test_no_later_day_changes_what_was_known(daily: Panel) -> None:
    whole = _conditions(daily, ENTRY)
    alone = daily.select(["S-MU"])
    ours = whole.long_entry[daily.rows_of("S-MU")]
    np.testing.assert_array_equal(_conditions(alone, ENTRY).long_entry, ours)
    for n in range(300, 320):  # a cut at every day of the week
        short = alone.take(np.arange(len(alone)) < n)
        np.testing.assert_array_equal(_conditions(short, ENTRY).long_entry, ours[:n])


def test_on_bars_of_that_timeframe_it_is_the_expression_itself(daily: Panel) -> None:
    weekly = resample(daily, timeframe("1W"))
    inner = _conditions(weekly, "close > mean(close, 4) and rsi_7 > 40")
    np.testing.assert_array_equal(_conditions(weekly, ENTRY).long_entry, inner.long_entry)


@pytest.mark.parametrize("longer", ["1M", "2D"])
def test_on_bars_that_do_not_make_it_up_nothing_is_true(daily: Panel, longer: str) -> None:
    found = _conditions(resample(daily, timeframe(longer)), ENTRY)
    assert not found.long_entry.any()
    assert not found.long_exit.any()


def test_the_timeframe_is_part_of_the_version_and_what_is_read_is_said(daily: Panel) -> None:
    hashes = {rule_hash(_text(f"at('{tf}', close) > 1"), "up.toml") for tf in ("1W", "2W", "1w")}
    assert len(hashes) == 2
    strategy = from_toml(_text(ENTRY), "up.toml")
    assert {"open", "high", "low", "close", "volume"} <= {*strategy.columns(strategy.parse({}))}
    assert strategy.lookback(strategy.parse({})) is None
    own = b'name = "up"\nlong_entry = "at(\'1W\', score) > 1"\n[columns]\nscore = "number"'
    scored = from_toml(own, "up.toml")
    with pytest.raises(InvalidInput, match="no feature 'score'"):
        conditions_of(scored, daily.with_columns({"score": daily["close"]}), scored.parse({}))


@given(
    st.sampled_from(["1W", "7D", "1M_CAL", "1Q", "2Y_CAL", "1D"]),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 400)), min_size=1, max_size=5),
)
def test_the_last_closed_bar_is_that_of_a_loop(longer: str, spans: list[tuple[int, int]]) -> None:
    """Assets that begin and end on any day, some without a day or a complete bar."""
    rows = {
        f"A{i}": [(close_stamp(us("2021-01-01") + (first + j) * DAY_US), GOOD) for j in range(n)]
        for i, (first, n) in enumerate(spans)
    }
    days = panel("1D", rows)
    of_days = LongerBars(days)
    bars = of_days.bars(longer, ())
    assert bars is not None
    found = of_days.known(bars, np.arange(len(bars), dtype=np.float64))
    for asset in days.assets:
        ours = bars.rows_of(asset)
        for row in range(*days.rows_of(asset).indices(len(days))):
            closed = [i for i in range(ours.start, ours.stop) if bars.ts[i] <= days.ts[row]]
            assert found[row] == closed[-1] if closed else np.isnan(found[row])
