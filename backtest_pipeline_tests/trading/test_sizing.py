"""How large an entry is, with numbers that a pencil can check: 10,000 in cash, bars at 100."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, SHORT_ENTRY
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import (
    AtrRisk,
    EqualWeight,
    FixedFractional,
    Sizing,
    VolatilityScaled,
)
from backtest_pipeline_tests.simulation.by_hand import trade_one
from backtest_pipeline_tests.simulation.markets import bars_of
from backtest_pipeline_tests.simulation.reference import Account, Refusal

FREE = SimulationConfig(CostModel(0.0, 0.0))
LONG, SHORT = {0: LONG_ENTRY}, {0: SHORT_ENTRY}


def with_sizing(sizing: Sizing, max_leverage: float = 1.0) -> SimulationConfig:
    return replace(FREE, sizing=sizing, max_leverage=max_leverage)


def sizes(account: Account) -> Any:
    return pytest.approx([trade.size for trade in account.trades[0]], rel=1e-12)


def test_a_fraction_is_one_of_the_equity_at_the_fill_and_not_of_the_cash_at_first() -> None:
    # 50 units; at bar 2 they are worth 10,000, so that the equity is 15,000, of which half buys.
    bars = bars_of([100, 100, 200, 200])
    account = trade_one(bars, {0: 1, 1: SHORT_ENTRY}, with_sizing(FixedFractional(0.5)))
    assert sizes(account) == [50.0, 37.5]


def test_a_long_of_everything_leaves_room_for_slippage_and_fee_and_a_short_needs_none() -> None:
    config = replace(FREE, costs=CostModel(100.0, 200.0))
    assert sizes(trade_one(bars_of([100] * 3), LONG, config)) == [100 / (1.02 * 1.01)]
    assert sizes(trade_one(bars_of([100] * 3), SHORT, config)) == [100.0]


def test_a_long_that_has_room_for_its_costs_is_not_made_smaller() -> None:
    config = replace(with_sizing(FixedFractional(0.5)), costs=CostModel(100.0, 200.0))
    assert sizes(trade_one(bars_of([100] * 3), LONG, config)) == [50.0]


def test_a_reversal_is_sized_after_the_costs_of_closing() -> None:
    # 10,000 / 1.01 = 99.0099 units bought, sold for 9,900.99 less 1 %: 9,801.98 are left.
    config = replace(FREE, costs=CostModel(100.0, 0.0))
    account = trade_one(bars_of([100] * 5), {0: LONG_ENTRY, 2: SHORT_ENTRY}, config)
    bought = 10_000 / 101
    assert sizes(account) == [bought, bought * 0.99]
    assert account.trades[0][0].reason == "reversal"
    assert account.trades[0][0].fees == pytest.approx(2 * bought)


def test_leverage_buys_more_than_the_equity() -> None:
    account = trade_one(bars_of([100, 100, 110]), LONG, with_sizing(FixedFractional(3.0), 3.0))
    assert sizes(account) == [300.0]
    assert account.equity == pytest.approx([10_000, 10_000, 13_000])
    assert account.gross == pytest.approx([0.0, 3.0, 3.3 / 1.3])


def test_a_leverage_below_one_caps_what_a_sizing_asks_for() -> None:
    account = trade_one(bars_of([100] * 3), LONG, with_sizing(EqualWeight(), 0.5))
    assert sizes(account) == [50.0]


def test_equal_weight_counts_the_assets_of_its_account_unless_told() -> None:
    assert sizes(trade_one(bars_of([100] * 3), LONG, with_sizing(EqualWeight()))) == [100.0]
    assert sizes(trade_one(bars_of([100] * 3), LONG, with_sizing(EqualWeight(4)))) == [25.0]


def test_units_are_rounded_down_to_lots_for_either_side() -> None:
    config = replace(FREE, lot_size=7.0)
    assert sizes(trade_one(bars_of([100] * 3), LONG, config)) == [98.0]
    assert sizes(trade_one(bars_of([100] * 3), SHORT, config)) == [98.0]


def test_a_whole_number_of_lots_is_not_rounded_down_by_binary_fractions() -> None:
    config = replace(FREE, initial_cash=0.3, lot_size=0.1)
    assert sizes(trade_one(bars_of([1.0] * 3), LONG, config)) == [0.3]


def test_an_entry_below_one_lot_is_refused_and_its_signal_is_gone() -> None:
    account = trade_one(bars_of([100] * 5), LONG, replace(FREE, lot_size=101.0))
    assert account.trades == [[]]
    assert account.refusals == [[Refusal(1, 1, 100.0, "no lot")]]
    assert account.equity == [10_000.0] * 5


def test_an_entry_at_the_smallest_notional_is_filled_and_one_below_it_is_refused() -> None:
    at, above = replace(FREE, min_notional=10_000.0), replace(FREE, min_notional=10_000.01)
    assert sizes(trade_one(bars_of([100] * 3), LONG, at)) == [100.0]
    small = Refusal(1, -1, 100.0, "too little notional")
    assert trade_one(bars_of([100] * 3), SHORT, above).refusals == [[small]]


def test_the_smallest_notional_is_asked_of_the_rounded_lots() -> None:
    config = replace(FREE, lot_size=60.0, min_notional=6_001.0)
    assert trade_one(bars_of([100] * 3), LONG, config).refused == 1


def test_lots_and_notionals_may_differ_by_symbol() -> None:
    config = replace(FREE, lot_size={"A": 40.0}, min_notional={"A": 8_000.0})
    assert sizes(trade_one(bars_of([100] * 3), LONG, config)) == [80.0]


def test_a_refused_reversal_has_closed_what_was_held() -> None:
    # 50 units bought at 200 and sold at 100: the 5,000 that are left are too little for a short.
    bars = bars_of([100, 200, 100, 100])
    config = replace(FREE, min_notional=6_000.0)
    account = trade_one(bars, {0: LONG_ENTRY, 1: SHORT_ENTRY}, config)
    (closed,) = account.trades[0]
    assert (closed.reason, account.refused) == ("reversal", 1)
    assert account.equity == pytest.approx([10_000, 10_000, 5_000, 5_000])


def test_a_sizing_that_has_no_value_yet_refuses_the_entry() -> None:
    for sizing in (VolatilityScaled(lookback=3), AtrRisk(atr_period=3)):
        account = trade_one(bars_of([100, 101, 100, 101, 100, 101]), {2: 1}, with_sizing(sizing))
        ((refusal,),) = account.refusals
        assert (account.trades, refusal.bar, refusal.why) == ([[]], 3, "no size")
        assert math.isnan(refusal.units)
        known = trade_one(bars_of([100, 101, 100, 101, 100, 101]), {3: 1}, with_sizing(sizing))
        assert (len(known.trades[0]), known.refused) == (1, 0)


def test_volatility_scaling_brings_the_assets_volatility_to_its_target() -> None:
    # Returns of 10 % and -10 %: their deviation with ddof 1 is 0.1 x sqrt(2), a year has 365.
    bars = bars_of([100, 110, 99, 99, 99], closes=[100, 110, 99, 99, 99])
    sizing = VolatilityScaled(target=0.5, lookback=2)
    account = trade_one(bars, {2: LONG_ENTRY}, with_sizing(sizing))
    fraction = 0.5 / (0.1 * math.sqrt(2) * math.sqrt(365))
    assert sizes(account) == [fraction * 10_000 / 99]


def test_a_volatility_of_zero_gives_the_cap() -> None:
    sizing = VolatilityScaled(lookback=2)
    assert sizes(trade_one(bars_of([100] * 5), {2: 1}, with_sizing(sizing, 2.0))) == [200.0]


def test_losing_the_distance_of_an_atr_risk_costs_the_risk() -> None:
    # ATR(2) is 4 at bar 2. 2 % of 10,000 over 2.5 x 4: 20 units, whose fall by 10 costs 200.
    bars = bars_of([100] * 5, highs=[102] * 5, lows=[98, 98, 98, 98, 90], closes=[100] * 4 + [90])
    sizing = AtrRisk(risk=0.02, atr_multiple=2.5, atr_period=2)
    account = trade_one(bars, {2: LONG_ENTRY}, with_sizing(sizing))
    assert sizes(account) == [20.0]
    assert account.equity[-1] == pytest.approx(10_000 - 200)


def test_an_atr_of_zero_gives_the_cap() -> None:
    account = trade_one(bars_of([100] * 5), {2: 1}, with_sizing(AtrRisk(atr_period=2), 0.5))
    assert sizes(account) == [50.0]


def test_no_fee_and_no_slippage_are_exactly_nothing() -> None:
    account = trade_one(bars_of([3.3, 3.3, 7.1, 7.1]), {0: LONG_ENTRY, 2: 2}, FREE)
    (trade,) = account.trades[0]
    assert (trade.fees, trade.slippage_cost, trade.funding) == (0.0, 0.0, 0.0)
    assert np.all(np.array(account.equity[:2]) == 10_000.0)
