"""Ruin, with numbers that a pencil can check: 10,000 in cash, entered at the open of bar 1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import FixedFractional
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.by_hand import trade_one
from backtest_pipeline_tests.simulation.markets import bars_of
from backtest_pipeline_tests.simulation.reference import Account
from backtest_pipeline_tests.simulation.reference_trade import Trade

FREE = SimulationConfig(CostModel(0.0, 0.0))
TRIPLE = replace(FREE, sizing=FixedFractional(3.0), max_leverage=3.0)
LONG, SHORT = {0: LONG_ENTRY}, {0: SHORT_ENTRY}


def ruined_trade(account: Account) -> Trade:
    """The only trade of an account that has nothing left."""
    (trade,) = account.trades[0]
    assert account.ruined
    assert account.pending == [None]
    assert trade.reason == "liquidation"
    assert account.equity[-1] == 0.0
    assert trade.pnl == pytest.approx(-10_000.0, rel=1e-12)
    return trade


def test_a_short_is_liquidated_at_the_price_that_leaves_nothing_within_the_bar() -> None:
    bars = bars_of([100, 100, 150, 90, 90], highs=[100, 100, 201, 90, 90])
    account = trade_one(bars, SHORT, FREE)
    trade = ruined_trade(account)
    assert (trade.exit_price, trade.at_open) == (pytest.approx(200.0), False)
    assert account.equity == pytest.approx([10_000, 10_000, 0, 0, 0])
    assert trade.bars_held == 1
    assert trade.mae == pytest.approx(-1.0)


def test_a_worth_of_exactly_nothing_is_ruin() -> None:
    bars = bars_of([100, 100, 150], highs=[100, 100, 200])
    assert ruined_trade(trade_one(bars, SHORT, FREE)).exit_price == pytest.approx(200.0)


def test_a_short_lives_on_where_the_high_leaves_it_something() -> None:
    bars = bars_of([100, 100, 150, 90], highs=[100, 100, 199.9, 90])
    assert trade_one(bars, SHORT, FREE).equity[-1] == pytest.approx(11_000)


def test_a_leveraged_long_is_liquidated_when_a_third_is_lost() -> None:
    # 300 units on 20,000 of debt: nothing is left at 200 / 3.
    bars = bars_of([100, 100, 80, 200], lows=[100, 100, 60, 200])
    trade = ruined_trade(trade_one(bars, LONG, TRIPLE))
    assert trade.exit_price == pytest.approx(200 / 3)


def test_a_long_without_debt_is_never_liquidated() -> None:
    bars = bars_of([100, 100, 1.1, 1.1])
    assert not trade_one(bars, LONG, FREE).ruined


def test_a_gap_through_ruin_liquidates_at_the_open_before_the_exit_that_is_due() -> None:
    bars = bars_of([100, 100, 150, 500, 100])
    trade = ruined_trade(trade_one(bars, {**SHORT, 2: SHORT_EXIT}, FREE))
    assert (trade.exit_price, trade.at_open) == (pytest.approx(200.0), True)
    assert trade.bars_held == 2


def test_no_signal_acts_after_ruin() -> None:
    bars = bars_of([100, 100, 300, 100, 100, 100])
    account = trade_one(bars, {**SHORT, 3: LONG_ENTRY, 5: LONG_ENTRY}, FREE)
    ruined_trade(account)
    assert account.refused == 0


def test_a_stop_before_the_ruinous_price_saves_the_account() -> None:
    bars = bars_of([100] * 3, highs=[100, 300, 100])
    config = replace(FREE, stops=StopRules(stop_loss=0.5))
    (trade,) = trade_one(bars, SHORT, config).trades[0]
    assert (trade.reason, trade.exit_price) == ("stop_loss", 150.0)


def test_a_stop_beyond_the_ruinous_price_comes_too_late() -> None:
    # The stop of the triple long lies at 60, and a third lost is all.
    bars = bars_of([100] * 3, lows=[100, 50, 100])
    config = replace(TRIPLE, stops=StopRules(stop_loss=0.4))
    assert ruined_trade(trade_one(bars, LONG, config)).exit_price == pytest.approx(200 / 3)


def test_ruin_comes_before_a_target_of_the_same_bar() -> None:
    bars = bars_of([100] * 3, highs=[100, 150, 100], lows=[100, 60, 100])
    config = replace(TRIPLE, stops=StopRules(take_profit=0.2))
    ruined_trade(trade_one(bars, LONG, config))


@pytest.mark.parametrize("bps", [2000.0, -2000.0])
def test_funding_counts_before_it_is_asked_whether_anything_is_left(bps: float) -> None:
    # At the low of 70 the triple long is worth 1,000; the bar's funding is 20 % of 30,000.
    bars = bars_of([100] * 3, lows=[100, 70, 100])
    config = replace(TRIPLE, costs=CostModel(0.0, 0.0, bps))
    account = trade_one(bars, LONG, config)
    assert account.ruined == (bps > 0)
    if account.ruined:
        trade = ruined_trade(account)
        assert trade.funding == pytest.approx(6_000.0)
        assert trade.exit_price == pytest.approx(100 - 4_000 / 300)


def test_an_exit_that_the_cash_does_not_pay_for_fills_where_nothing_is_left() -> None:
    # 100 units sold at 99 leave 19,900; buying them back at 198 and 1 % slippage costs 19,998.
    bars = bars_of([100, 100, 150, 198, 100, 100])
    config = replace(FREE, costs=CostModel(0.0, 100.0))
    trade = ruined_trade(trade_one(bars, {**SHORT, 2: SHORT_EXIT}, config))
    assert trade.exit_price == pytest.approx(199.0)
    assert trade.at_open
    assert trade.slippage_cost == pytest.approx(100.0)


def test_a_reversal_that_ruins_opens_nothing() -> None:
    bars = bars_of([100, 100, 150, 198, 100, 100])
    config = replace(FREE, costs=CostModel(0.0, 100.0))
    account = trade_one(bars, {**SHORT, 2: LONG_ENTRY}, config)
    ruined_trade(account)
    assert account.refused == 0


def test_the_fee_of_a_ruinous_exit_takes_what_is_left_and_no_more() -> None:
    # 100 units sold at 100 for a fee of 100 leave 19,900: the cover at 198 leaves 100 of its fee
    # of 198.
    bars = bars_of([100, 100, 150, 198, 100])
    config = replace(FREE, costs=CostModel(100.0, 0.0))
    trade = ruined_trade(trade_one(bars, {**SHORT, 2: SHORT_EXIT}, config))
    assert trade.exit_price == 198.0
    assert trade.fees == pytest.approx(200.0)


def test_a_ruinous_exit_costs_no_slippage() -> None:
    # 100 units sold at 99 for a fee of 99 leave 19,801: the cover at 196.95 leaves 106 of its fee.
    bars = bars_of([100, 100, 150, 195, 100])
    config = replace(FREE, costs=CostModel(100.0, 100.0))
    trade = ruined_trade(trade_one(bars, {**SHORT, 2: SHORT_EXIT}, config))
    assert trade.exit_price == pytest.approx(196.95)
    assert trade.fees == pytest.approx(99 + 106)
    assert trade.slippage_cost == pytest.approx(100.0)


def test_the_fee_of_a_stop_may_ruin_too() -> None:
    # 30,000 / 101 units on 20,000 of debt. The stop sells them at 68 for 20,198.02, and the fee
    # of 201.98 is more than the 198.02 that are left.
    bars = bars_of([100] * 3, lows=[100, 68, 100])
    config = replace(TRIPLE, costs=CostModel(100.0, 0.0), stops=StopRules(stop_loss=0.32))
    trade = ruined_trade(trade_one(bars, LONG, config))
    assert (trade.exit_price, trade.at_open) == (pytest.approx(68.0), False)
    assert trade.fees == pytest.approx(30_000 / 101 + 30_000 / 101 * 68 - 20_000)


def test_an_exit_that_leaves_a_little_is_no_ruin() -> None:
    bars = bars_of([100, 100, 67, 100])
    account = trade_one(bars, {**LONG, 1: LONG_EXIT}, TRIPLE)
    assert not account.ruined
    assert account.equity[-1] == pytest.approx(100.0)
