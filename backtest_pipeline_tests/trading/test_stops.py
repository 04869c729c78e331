"""Stops, targets and time stops, with numbers that a pencil can check.

Unless a test says otherwise: 10,000 in cash, no costs, a signal at bar 0, so that a position of
100 units is entered at 100 at the open of bar 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import IntrabarOrder, StopRules
from backtest_pipeline_tests.simulation.by_hand import trade_one
from backtest_pipeline_tests.simulation.markets import bars_of
from backtest_pipeline_tests.simulation.reference import Account
from backtest_pipeline_tests.simulation.reference_trade import Trade

FREE = SimulationConfig(CostModel(0.0, 0.0))
LONG, SHORT = {0: LONG_ENTRY}, {0: SHORT_ENTRY}


def with_stops(**rules: float | int | None) -> SimulationConfig:
    return replace(FREE, stops=StopRules(**rules))  # pyright: ignore[reportArgumentType]


def only(account: Account) -> Trade:
    (trade,) = account.trades[0]
    return trade


def end_of(account: Account) -> tuple[str, Any, bool]:
    """Why, at which price and whether at an open the first trade ended."""
    trade = account.trades[0][0]
    return trade.reason, pytest.approx(trade.exit_price, rel=1e-12), trade.at_open


def test_a_stop_is_looked_at_in_the_entry_bar() -> None:
    account = trade_one(bars_of([100] * 3, lows=[100, 89, 100]), LONG, with_stops(stop_loss=0.1))
    assert end_of(account) == ("stop_loss", 90.0, False)
    assert only(account).bars_held == 0
    assert account.equity == pytest.approx([10_000, 9_000, 9_000])


def test_a_target_is_looked_at_in_the_entry_bar() -> None:
    bars = bars_of([100] * 3, highs=[100, 121, 100])
    account = trade_one(bars, LONG, with_stops(take_profit=0.2))
    assert end_of(account) == ("take_profit", 120.0, False)
    assert account.equity == pytest.approx([10_000, 12_000, 12_000])


def test_a_low_at_the_level_hits_the_stop_and_one_above_does_not() -> None:
    stops = with_stops(stop_loss=0.5)
    at, above = ([100, 100, low] for low in (50, 50.001))
    assert end_of(trade_one(bars_of([100] * 3, lows=at), LONG, stops))[0] == "stop_loss"
    assert end_of(trade_one(bars_of([100] * 3, lows=above), LONG, stops))[0] == "end_of_data"


def test_a_gap_through_the_stop_fills_at_the_open() -> None:
    bars = bars_of([100, 100, 80, 100])
    account = trade_one(bars, LONG, with_stops(stop_loss=0.1))
    assert end_of(account) == ("stop_loss", 80.0, True)
    assert account.equity == pytest.approx([10_000, 10_000, 8_000, 8_000])


def test_a_gap_through_the_target_fills_at_the_open() -> None:
    account = trade_one(bars_of([100, 100, 130, 100]), LONG, with_stops(take_profit=0.2))
    assert end_of(account) == ("take_profit", 130.0, True)


def test_a_shorts_stop_lies_above_and_its_target_below() -> None:
    bars = bars_of([100] * 4, highs=[100, 100, 111, 100], lows=[100, 100, 100, 75])
    assert end_of(trade_one(bars, SHORT, with_stops(stop_loss=0.1))) == ("stop_loss", 110.0, False)
    target = with_stops(take_profit=0.2)
    assert end_of(trade_one(bars, SHORT, target)) == ("take_profit", 80.0, False)


def test_a_gap_fills_a_shorts_stop_and_target_at_the_open() -> None:
    up, down = bars_of([100, 100, 125]), bars_of([100, 100, 70])
    assert end_of(trade_one(up, SHORT, with_stops(stop_loss=0.1))) == ("stop_loss", 125.0, True)
    target = with_stops(take_profit=0.2)
    assert end_of(trade_one(down, SHORT, target)) == ("take_profit", 70.0, True)


def test_an_exit_that_is_due_at_the_open_goes_before_a_stop_of_that_bar() -> None:
    bars = bars_of([100, 100, 99, 99], lows=[100, 100, 50, 99])
    account = trade_one(bars, {**LONG, 1: LONG_EXIT}, with_stops(stop_loss=0.1))
    assert end_of(account) == ("signal", 99.0, True)


def test_an_exit_that_is_due_names_itself_even_where_the_open_gaps_through_the_stop() -> None:
    account = trade_one(bars_of([100, 100, 80]), {**LONG, 1: LONG_EXIT}, with_stops(stop_loss=0.1))
    assert end_of(account) == ("signal", 80.0, True)


def test_levels_come_from_the_fill_and_a_stops_fill_slips_and_pays_its_fee() -> None:
    # Bought at 101; the stop lies at 101 x 0.9 = 90.9 and sells at 90.9 x 0.99 = 89.991.
    config = replace(with_stops(stop_loss=0.1), costs=CostModel(100.0, 100.0))
    bars = bars_of([100] * 3, lows=[100, 100, 90.9])
    trade = only(trade_one(bars, LONG, config))
    assert trade.entry_price == pytest.approx(101.0)
    assert trade.exit_price == pytest.approx(89.991)
    assert trade.size == pytest.approx(10_000 / (101 * 1.01))
    assert trade.fees == pytest.approx(trade.size * (1.01 + 0.89991))
    assert trade.slippage_cost == pytest.approx(trade.size * (1.0 + 0.909))


def test_a_stop_that_slippage_puts_above_the_open_is_hit_at_the_open_of_the_entry_bar() -> None:
    # Bought at 110, so that the stop lies at 104.5, above the open; it sells at 90.
    config = replace(with_stops(stop_loss=0.05), costs=CostModel(0.0, 1000.0))
    account = trade_one(bars_of([100] * 3), LONG, config)
    assert end_of(account) == ("stop_loss", 90.0, True)
    assert only(account).bars_held == 0


BOTH_HIT = bars_of([100] * 4, highs=[100, 100, 125, 100], lows=[100, 100, 85, 100])
BOTH = with_stops(stop_loss=0.1, take_profit=0.2)


def test_of_stop_and_target_in_one_bar_the_stop_is_first() -> None:
    assert end_of(trade_one(BOTH_HIT, LONG, BOTH)) == ("stop_loss", 90.0, False)


def test_of_stop_and_target_in_one_bar_the_target_is_first_where_asked_for() -> None:
    config = replace(BOTH, intrabar=IntrabarOrder.TARGET_FIRST)
    assert end_of(trade_one(BOTH_HIT, LONG, config)) == ("take_profit", 120.0, False)


@pytest.mark.parametrize("order", list(IntrabarOrder))
@pytest.mark.parametrize(
    ("opens", "end"),
    [(130.0, ("take_profit", 130.0, True)), (80.0, ("stop_loss", 80.0, True))],
)
def test_the_one_that_the_open_is_beyond_comes_first_in_either_order(
    order: IntrabarOrder, opens: float, end: tuple[str, float, bool]
) -> None:
    bars = bars_of([100, 100, opens], highs=[100, 100, 140], lows=[100, 100, 70])
    assert end_of(trade_one(bars, LONG, replace(BOTH, intrabar=order))) == end


def halves(morning: tuple[float, float], afternoon: tuple[float, float]) -> pd.DataFrame:
    """Half days of four days; the third has these lows and highs."""
    ranges = [(100.0, 100.0)] * 4 + [morning, afternoon] + [(100.0, 100.0)] * 2
    lows, highs = zip(*ranges, strict=True)
    return bars_of([100] * 8, lows=lows, highs=highs, freq="12h")


@pytest.mark.parametrize("order", list(IntrabarOrder))
@pytest.mark.parametrize(
    ("morning", "afternoon", "end"),
    [
        ((85, 110), (95, 125), ("stop_loss", 90.0, False)),
        ((95, 125), (85, 110), ("take_profit", 120.0, False)),
    ],
)
def test_the_first_finer_bar_to_touch_either_decides(
    order: IntrabarOrder,
    morning: tuple[float, float],
    afternoon: tuple[float, float],
    end: tuple[str, float, bool],
) -> None:
    config = replace(BOTH, intrabar=order)
    account = trade_one(BOTH_HIT, LONG, config, finer=halves(morning, afternoon))
    assert end_of(account) == end


@pytest.mark.parametrize(
    ("order", "reason"),
    [(IntrabarOrder.STOP_FIRST, "stop_loss"), (IntrabarOrder.TARGET_FIRST, "take_profit")],
)
@pytest.mark.parametrize(
    "finer",
    [halves((85, 125), (95, 125)), halves((95, 105), (95, 105)), halves((95, 105), (85, 125))],
    ids=["touches both", "neither touches", "the second touches both"],
)
def test_finer_bars_that_cannot_tell_leave_it_to_the_order(
    finer: pd.DataFrame, order: IntrabarOrder, reason: str
) -> None:
    account = trade_one(BOTH_HIT, LONG, replace(BOTH, intrabar=order), finer=finer)
    assert end_of(account)[0] == reason


def test_finer_bars_of_other_days_tell_nothing() -> None:
    finer = halves((85, 110), (95, 125)).drop(
        index=pd.date_range("2024-01-03", periods=2, freq="12h", tz="UTC")
    )
    config = replace(BOTH, intrabar=IntrabarOrder.TARGET_FIRST)
    assert end_of(trade_one(BOTH_HIT, LONG, config, finer=finer))[0] == "take_profit"


def test_a_trailing_level_is_known_before_the_bar_begins() -> None:
    # Bar 2 reaches 120 and then falls to 105: its level is still 90, of the entry. Bar 3 begins
    # with 120 x 0.9 = 108.
    bars = bars_of(
        [100, 100, 100, 115, 100], highs=[100, 100, 120, 115, 100], lows=[100, 100, 95, 107, 100]
    )
    account = trade_one(bars, LONG, with_stops(trailing=0.1))
    assert end_of(account) == ("trailing_stop", 108.0, False)
    assert only(account).bars_held == 2


def test_a_trailing_stop_begins_at_the_entry_price() -> None:
    bars = bars_of([100] * 3, lows=[100, 89, 100])
    account = trade_one(bars, LONG, with_stops(trailing=0.1))
    assert end_of(account) == ("trailing_stop", 90.0, False)


def test_the_high_of_the_entry_bar_moves_the_trailing_stop_and_that_of_the_signals_does_not() -> (
    None
):
    stops = with_stops(trailing=0.1)
    seen = bars_of([100] * 3, highs=[100, 110, 100], lows=[100, 100, 98])
    assert end_of(trade_one(seen, LONG, stops)) == ("trailing_stop", 99.0, False)
    before = bars_of([100] * 3, highs=[110, 100, 100], lows=[100, 100, 98])
    assert end_of(trade_one(before, LONG, stops))[0] == "end_of_data"


def test_a_shorts_trailing_stop_follows_the_lowest_low() -> None:
    bars = bars_of([100, 100, 85, 85], lows=[100, 80, 85, 85], highs=[100, 100, 87, 89])
    account = trade_one(bars, SHORT, with_stops(trailing=0.1))
    assert end_of(account) == ("trailing_stop", 88.0, False)


def test_of_two_stops_the_nearest_counts_and_names_the_exit() -> None:
    bars = bars_of([100, 100, 100, 100], lows=[100, 100, 100, 80])
    near, far = with_stops(stop_loss=0.05, trailing=0.1), with_stops(stop_loss=0.1, trailing=0.05)
    assert end_of(trade_one(bars, LONG, near)) == ("stop_loss", 95.0, False)
    assert end_of(trade_one(bars, LONG, far)) == ("trailing_stop", 95.0, False)


def test_of_two_equal_stops_the_fixed_one_names_the_exit() -> None:
    bars = bars_of([100] * 3, lows=[100, 100, 80])
    account = trade_one(bars, LONG, with_stops(stop_loss=0.1, trailing=0.1))
    assert end_of(account) == ("stop_loss", 90.0, False)


# With lows of 98 the true range is 4 until a test changes a bar.
HIGHS = [102.0] * 8


def test_a_trailing_atr_stop_begins_with_the_atr_of_the_signals_bar() -> None:
    # ATR(2) is 4 from bar 2 on. Entered at bar 4 at 100; 1.5 x 4 below lies 94.
    lows = [98.0, 98, 98, 98, 93, 98, 98, 98]
    bars = bars_of([100] * 8, highs=HIGHS, lows=lows)
    stops = with_stops(trailing_atr=1.5, atr_period=2)
    account = trade_one(bars, {3: LONG_ENTRY}, stops)
    assert end_of(account) == ("trailing_stop", 94.0, False)
    assert only(account).bars_held == 0


def test_a_trailing_atr_stop_hangs_from_the_highest_high() -> None:
    # Bar 4 reaches 103 and its true range is 5: ATR (4 + 5) / 2 = 4.5, level 103 - 6.75 = 96.25.
    highs, lows = [102.0] * 8, [98.0] * 8
    highs[4], lows[5] = 103.0, 96.0
    bars = bars_of([100] * 8, highs=highs, lows=lows)
    account = trade_one(bars, {3: LONG_ENTRY}, with_stops(trailing_atr=1.5, atr_period=2))
    assert end_of(account) == ("trailing_stop", 96.25, False)


def test_a_trailing_atr_level_never_falls() -> None:
    # Highest 102, ATR 4: 102 - 3 x 4 = 90. Bar 5 has a range of 11 and makes the ATR 7.5, which
    # would give 79.5; the 90 stands, and bar 6 falls through it.
    lows = [98.0] * 8
    lows[5], lows[6] = 91.0, 89.0
    bars = bars_of([100] * 8, highs=HIGHS, lows=lows)
    account = trade_one(bars, {3: LONG_ENTRY}, with_stops(trailing_atr=3.0, atr_period=2))
    assert end_of(account) == ("trailing_stop", 90.0, False)


def test_the_warm_up_of_the_atr_delays_the_stop_and_does_not_disable_it() -> None:
    # ATR(3) is known from the close of bar 3 on: bar 3 may fall, bar 4 has a level. The true
    # ranges are 4, 4 and 12, their mean 20 / 3, and the highest high is 102.
    lows = [98.0, 98, 98, 90, 80, 98, 98, 98]
    bars = bars_of([100] * 8, highs=HIGHS, lows=lows)
    account = trade_one(bars, LONG, with_stops(trailing_atr=1.5, atr_period=3))
    assert end_of(account) == ("trailing_stop", 102 - 1.5 * 20 / 3, False)
    assert only(account).bars_held == 3


def test_a_shorts_trailing_atr_stop_lies_above_the_lowest_low() -> None:
    # Entered at 100 with an ATR of 4: 106. After bar 4, whose low is 97 and whose ATR is
    # (4 + 5) / 2: 97 + 6.75 = 103.75.
    highs, lows = [102.0] * 8, [98.0] * 8
    lows[4], highs[5] = 97.0, 104.0
    bars = bars_of([100] * 8, highs=highs, lows=lows)
    account = trade_one(bars, {3: SHORT_ENTRY}, with_stops(trailing_atr=1.5, atr_period=2))
    assert end_of(account) == ("trailing_stop", 103.75, False)


@pytest.mark.parametrize("max_bars", [1, 3])
def test_a_position_leaves_at_the_open_that_lies_max_bars_after_its_entry(max_bars: int) -> None:
    bars = bars_of([100, 100, 110, 120, 130, 140])
    account = trade_one(bars, LONG, with_stops(max_bars=max_bars))
    assert end_of(account) == ("time_stop", 100.0 + 10 * max_bars, True)
    assert only(account).bars_held == max_bars


def test_max_bars_counts_bars_and_not_days() -> None:
    bars = bars_of([100, 100, 110, 120, 130]).drop(index=pd.Timestamp("2024-01-03", tz="UTC"))
    account = trade_one(bars, LONG, with_stops(max_bars=2))
    assert end_of(account) == ("time_stop", 130.0, True)


@pytest.mark.parametrize(
    ("signal", "reason", "n_trades"),
    [
        (LONG_EXIT, "signal", 1),
        (SHORT_ENTRY, "reversal", 2),
        (LONG_ENTRY, "time_stop", 1),
        (0, "time_stop", 1),
    ],
)
def test_a_signal_that_is_due_with_a_time_stop_names_the_exit(
    signal: int, reason: str, n_trades: int
) -> None:
    account = trade_one(bars_of([100] * 5), {**LONG, 2: signal}, with_stops(max_bars=2))
    assert end_of(account)[0] == reason
    assert len(account.trades[0]) == n_trades


def test_a_time_stop_goes_before_a_stop_of_that_bar() -> None:
    bars = bars_of([100] * 4, lows=[100, 100, 50, 100])
    account = trade_one(bars, LONG, with_stops(stop_loss=0.1, max_bars=1))
    assert end_of(account) == ("time_stop", 100.0, True)


def test_the_signal_of_the_bar_that_was_stopped_enters_again_at_the_next_open() -> None:
    bars = bars_of([100] * 4, lows=[100, 85, 100, 100])
    account = trade_one(bars, {**LONG, 1: LONG_ENTRY}, with_stops(stop_loss=0.1))
    first, second = account.trades[0]
    assert (first.reason, second.entry_bar) == ("stop_loss", 2)
    assert second.size == pytest.approx(90.0)


def test_excursions_see_the_bars_held_to_their_close_and_the_fills_only() -> None:
    # Bar 1 is seen whole, 97 to 104. Bar 2 ends the trade at 90: its high of 119 is not known to
    # have come before.
    bars = bars_of([100] * 3, highs=[100, 104, 119], lows=[100, 97, 85])
    trade = only(trade_one(bars, LONG, with_stops(stop_loss=0.1)))
    assert trade.mae == pytest.approx(-0.10)
    assert trade.mfe == pytest.approx(0.04)
    short = only(trade_one(bars, SHORT, with_stops(stop_loss=0.1)))
    assert short.mae == pytest.approx(-0.10)
    assert short.mfe == pytest.approx(0.03)


def test_a_signal_acts_delay_bars_later_and_its_levels_are_those_of_the_bar_it_enters() -> None:
    bars = bars_of([100, 110, 120, 130, 140])
    account = trade_one(bars, {0: LONG_ENTRY, 1: LONG_EXIT}, replace(FREE, delay_bars=2))
    trade = only(account)
    assert (trade.entry_bar, trade.entry_price) == (3, 130.0)
    assert end_of(account) == ("signal", 140.0, True)


# Cooldown


@pytest.mark.parametrize(
    ("bars", "entered"),
    [(0, [2, 4, 6, 8]), (1, [2, 6]), (2, [2, 6]), (3, [2, 8]), (4, [2, 8]), (5, [2])],
)
def test_a_cooldown_keeps_entries_out_from_the_bar_that_a_position_closes_in(
    bars: int, entered: list[int]
) -> None:
    flat = bars_of([100.0] * 9)
    crosses = {t: LONG_ENTRY if t % 2 else LONG_EXIT for t in range(1, 8)}
    account = trade_one(flat, crosses, replace(FREE, cooldown_bars=bars))
    assert [trade.entry_bar for trade in account.trades[0]] == entered


def test_a_cooldown_counts_from_a_stop_as_from_any_exit() -> None:
    fall = bars_of(
        [100.0] * 3 + [95.0] * 4,
        [100.0] * 2 + [95.0] * 5,
        lows=[100.0] * 2 + [90.0] + [95.0] * 4,
    )
    always = dict.fromkeys(range(7), LONG_ENTRY)
    account = trade_one(fall, always, replace(with_stops(stop_loss=0.05), cooldown_bars=2))
    # Stopped in bar 2: the closes of bars 2 and 3 say nothing, that of bar 4 enters at bar 5.
    assert [trade.entry_bar for trade in account.trades[0]] == [1, 5]


def test_a_reversal_is_but_an_exit_where_there_is_a_cooldown() -> None:
    flat = bars_of([100.0] * 4)
    account = trade_one(flat, {0: LONG_ENTRY, 1: SHORT_ENTRY}, replace(FREE, cooldown_bars=1))
    (trade,) = account.trades[0]
    assert trade.reason == "signal"
