"""Distances of stops that are expressions: read at the signal's bar.

10,000 in cash, no costs, a signal at bar 0, an entry at 100 at the next open.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backtest_pipeline.market.errors import InvalidInput, RuleError
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, SHORT_ENTRY
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.by_hand import trade_one
from backtest_pipeline_tests.simulation.markets import bars_of
from backtest_pipeline_tests.simulation.reference import Account

LONG, SHORT = {0: LONG_ENTRY}, {0: SHORT_ENTRY}


def with_stops(**rules: Any) -> SimulationConfig:
    return SimulationConfig(CostModel(0.0, 0.0), stops=StopRules(**rules))


def end_of(account: Account) -> tuple[str, Any, bool]:
    """Why, at which price and whether at an open the only trade ended."""
    (trade,) = account.trades[0]
    return trade.reason, pytest.approx(trade.exit_price, rel=1e-12), trade.at_open


def test_a_stop_by_expression_is_that_of_the_signals_bar() -> None:
    # The signal's bar ranges from 96 to 104, the entry's from 95 to 101: 8 % and not 6 %.
    stops = with_stops(stop_loss="(high - low) / close")
    bars = bars_of([100] * 3, highs=[104, 101, 100], lows=[96, 95, 90])
    assert end_of(trade_one(bars, LONG, stops)) == ("stop_loss", 92.0, False)
    assert end_of(trade_one(bars, SHORT, stops))[0] == "end_of_data"


def test_a_target_by_expression_is_that_of_the_signals_bar_where_fills_are_late_too() -> None:
    stops = replace(with_stops(take_profit="(high - low) / close"), delay_bars=1)
    bars = bars_of([100] * 4, highs=[102, 110, 103, 105], lows=[98, 100, 100, 100])
    assert end_of(trade_one(bars, LONG, stops)) == ("take_profit", 104.0, False)


def test_a_trailing_stop_by_expression_keeps_its_distance_while_the_price_moves() -> None:
    # 10 % at the signal's bar; 20 % at the bar that makes the high of 120: 120 x 0.9 = 108.
    bars = bars_of([100, 100, 118, 118], highs=[105, 100, 120, 118], lows=[95, 100, 96, 100])
    stops = with_stops(trailing="(high - low) / close")
    assert end_of(trade_one(bars, LONG, stops)) == ("trailing_stop", 108.0, False)


def test_a_multiple_of_the_atr_by_expression_keeps_while_the_atr_moves() -> None:
    # 1.5 at the signal's bar, 3 at all others; the ATR of 4 becomes 4.5 as the bar reaches 103.
    highs, lows = [102.0] * 8, [98.0] * 8
    highs[4], lows[5] = 103.0, 96.0
    bars = bars_of([100] * 8, highs=highs, lows=lows)
    bars.iloc[3, bars.columns.get_loc("open")] = 101.0
    stops = with_stops(trailing_atr="1.5 if open > close else 3", atr_period=2)
    account = trade_one(bars, {3: LONG_ENTRY}, stops)
    assert end_of(account) == ("trailing_stop", 96.25, False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stop_loss", "close - open"),  # 0
        ("stop_loss", "close / 100"),  # 1, a loss of all
        ("trailing", "close / 100"),
        ("take_profit", "close - open"),
        ("trailing_atr", "shift(close, 5)"),  # undefined
    ],
)
def test_without_a_distance_at_the_signals_bar_the_entry_is_blocked(name: str, text: str) -> None:
    account = trade_one(bars_of([100] * 4), {1: LONG_ENTRY}, with_stops(**{name: text}))
    (refusal,) = account.refusals[0]
    assert (account.trades[0], refusal.bar, refusal.units, refusal.why) == ([], 2, 100.0, "no stop")


def test_a_number_in_text_is_that_number() -> None:
    assert StopRules(stop_loss="5e-2") == StopRules(stop_loss=0.05)
    with pytest.raises(InvalidInput, match="stop_loss must be above 0 and below 1, not 2"):
        StopRules(stop_loss="2")
    with pytest.raises(RuleError, match=r"trailing.*boom is no function"):
        with_stops(trailing="boom(close)")
    with pytest.raises(RuleError, match=r"trailing.*this is a condition"):
        with_stops(trailing="close > open")
