"""Many assets on one account, with numbers that a pencil can check: 10,000 in cash, no costs."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.book import simulate_book
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import (
    LONG_ENTRY,
    LONG_EXIT,
    SHORT_ENTRY,
    SHORT_EXIT,
)
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import EqualWeight, FixedFractional
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.assumptions import configs, seeds, volatilities
from backtest_pipeline_tests.simulation.by_hand import trade_book
from backtest_pipeline_tests.simulation.markets import bars_of, random_events, random_market
from backtest_pipeline_tests.simulation.reference import Account, Refusal

FREE = SimulationConfig(CostModel(0.0, 0.0))
BOOK_LENGTHS = (30, 40, 0, 25)
HALF = replace(FREE, sizing=FixedFractional(0.5))


def sizes(account: Account) -> list[list[Any]]:
    """Sizes by asset, which compare with a relative tolerance of 1e-12."""
    return [[pytest.approx(t.size, rel=1e-12) for t in trades] for trades in account.trades]


def test_sales_of_an_open_pay_for_its_purchases() -> None:
    still = bars_of([100] * 5)
    for names in (("A", "B"), ("B", "A")):
        signals = {"A": {0: LONG_ENTRY, 2: LONG_EXIT}, "B": {2: LONG_ENTRY}}
        account = trade_book(dict.fromkeys(names, still), signals, FREE)
        assert account.refused == 0
        assert sizes(account) == [[100.0], [100.0]]


def test_entries_of_one_open_that_want_too_much_shrink_by_the_same_factor() -> None:
    # 80 % each of 10,000: both get 10,000 / 16,000 of what they want.
    frames = {"A": bars_of([100] * 3), "B": bars_of([50] * 3)}
    config = replace(FREE, sizing=FixedFractional(0.8))
    account = trade_book(frames, {"A": {0: LONG_ENTRY}, "B": {0: LONG_ENTRY}}, config)
    assert sizes(account) == [[50.0], [100.0]]


def test_a_long_needs_its_costs_of_the_shared_room_and_a_short_does_not() -> None:
    # They need 10,000 x 1.02 x 1.01 and 10,000 of 10,000.
    frames = {"A": bars_of([100] * 3), "B": bars_of([100] * 3)}
    config = replace(FREE, costs=CostModel(100.0, 200.0))
    account = trade_book(frames, {"A": {0: LONG_ENTRY}, "B": {0: SHORT_ENTRY}}, config)
    share = 100 / (1.02 * 1.01 + 1)
    assert sizes(account) == [[share], [share]]


def test_positions_that_are_held_leave_less_room_long_or_short() -> None:
    # A is short 60 units, worth 6,600 at the second open: equity 9,400, room 2,800.
    frames = {"A": bars_of([100, 100, 110, 110]), "B": bars_of([10] * 4)}
    config = replace(FREE, sizing=FixedFractional(0.6))
    account = trade_book(frames, {"A": {0: SHORT_ENTRY}, "B": {1: LONG_ENTRY}}, config)
    assert sizes(account) == [[60.0], [280.0]]


def test_an_entry_without_any_room_is_refused() -> None:
    frames = {"A": bars_of([100] * 4), "B": bars_of([10] * 4)}
    signals = {"A": {0: SHORT_ENTRY}, "B": {1: LONG_ENTRY}}
    account = trade_book(frames, signals, FREE)
    assert sizes(account) == [[100.0], []]
    assert account.refusals == [[], [Refusal(2, 1, 1_000.0, "no room")]]


def test_equity_for_sizing_is_that_of_the_opens_after_the_exits() -> None:
    # A gained 100 % by bar 3's open, where B enters with half of 15,000.
    frames = {"A": bars_of([100, 100, 100, 200, 200]), "B": bars_of([10] * 5)}
    account = trade_book(frames, {"A": {0: LONG_ENTRY}, "B": {2: LONG_ENTRY}}, HALF)
    assert sizes(account) == [[50.0], [500.0]]


def test_equal_weight_divides_by_the_assets_of_the_book() -> None:
    frames = {name: bars_of([100] * 3) for name in "ABCD"}
    config = replace(FREE, sizing=EqualWeight())
    assert sizes(trade_book(frames, {"A": {0: LONG_ENTRY}}, config)) == [[25.0], [], [], []]


def test_exposures_are_fractions_of_the_equity() -> None:
    # 50 units of A at 120 and 100 units short of B at 40, of an equity of 12,000.
    frames = {
        "A": bars_of([100, 100, 100], closes=[100, 100, 120]),
        "B": bars_of([50, 50, 50], closes=[50, 50, 40]),
    }
    account = trade_book(frames, {"A": {0: LONG_ENTRY}, "B": {0: SHORT_ENTRY}}, HALF)
    assert account.equity == pytest.approx([10_000, 10_000, 12_000])
    assert account.gross == pytest.approx([0.0, 1.0, (6_000 + 4_000) / 12_000])
    assert account.net == pytest.approx([0.0, 0.0, (6_000 - 4_000) / 12_000])


def test_an_asset_without_a_bar_keeps_its_last_close_and_acts_at_its_own_next_open() -> None:
    days = bars_of([100, 100, 110, 120, 130])
    frames = {"A": days.drop(index=days.index[[2]]), "B": days}
    signals = {"A": {0: LONG_ENTRY, 1: LONG_EXIT}}
    account = trade_book(frames, signals, HALF)
    assert account.equity == pytest.approx([10_000, 10_000, 10_000, 11_000, 11_000])
    assert account.trades[0][0].exit_price == 120.0


def test_the_union_of_the_stamps_is_the_calendar_of_the_book() -> None:
    days = bars_of([100] * 6)
    frames = {"A": days.iloc[[0, 1, 4]], "B": days.iloc[[1, 2]]}
    account = trade_book(frames, {"A": {0: LONG_ENTRY}}, HALF)
    assert len(account.equity) == 4


def test_a_ruined_book_closes_every_position_the_same_share_of_the_way() -> None:
    # Short 100 of A and 100 of B on 10,000. Within bar 2 the highs would cost 10,000 and 30,000:
    # nothing is left a quarter of the way.
    highs = {"A": [100, 100, 200], "B": [100, 100, 400]}
    frames = {name: bars_of([100] * 3, highs=high) for name, high in highs.items()}
    signals = {name: {0: SHORT_ENTRY} for name in "AB"}
    config = replace(FREE, sizing=FixedFractional(1.0), max_leverage=2.0)
    account = trade_book(frames, signals, config)
    prices = [trades[0].exit_price for trades in account.trades]
    assert prices == pytest.approx([125.0, 175.0])
    assert [trades[0].reason for trades in account.trades] == ["liquidation"] * 2
    assert account.ruined
    assert account.equity[-1] == account.gross[-1] == account.net[-1] == 0.0


def test_what_one_position_gains_may_keep_the_book_from_ruin() -> None:
    # A alone would be ruined at B's prices of before; the gap in B, known at the opens, saves it.
    frames = {"A": bars_of([100, 100, 210]), "B": bars_of([100, 100, 130])}
    config = replace(FREE, sizing=FixedFractional(1.0), max_leverage=2.0)
    account = trade_book(frames, {"A": {0: SHORT_ENTRY}, "B": {0: LONG_ENTRY}}, config)
    assert account.equity == pytest.approx([10_000, 10_000, 2_000])


def test_in_a_ruinous_bar_a_stopped_position_counts_with_its_stops_fill() -> None:
    # Long 200 each on 30,000 of debt. A's low of 81 is above its stop of 80, B falls through its
    # own: 16,200 + 16,000 leave 2,200. At B's low of 50 it would be ruin.
    lows = {"A": [100, 100, 81], "B": [100, 100, 50]}
    frames = {name: bars_of([100] * 3, lows=low) for name, low in lows.items()}
    config = replace(FREE, sizing=FixedFractional(2.0), max_leverage=4.0)
    signals = {name: {0: LONG_ENTRY} for name in "AB"}
    assert trade_book(frames, signals, config).ruined
    saved = trade_book(frames, signals, replace(config, stops=StopRules(stop_loss=0.2)))
    assert [trades[0].reason for trades in saved.trades] == ["end_of_data", "stop_loss"]
    assert saved.equity == pytest.approx([10_000, 10_000, 6_000])


# Short 100 units each of A and B at 100 for fees of 1,000 each: 28,000 in cash, worth 8,000.
TWO_SHORTS = replace(FREE, costs=CostModel(1000.0, 0.0), max_leverage=2.0)


def test_an_exit_that_ruins_a_book_closes_the_others_at_that_open_for_nothing() -> None:
    # A costs 17,000 and B is worth 10,000, so that 1,000 are left for A's fee of 1,700.
    frames = {"A": bars_of([100, 100, 170, 100]), "B": bars_of([100] * 4)}
    signals = {"A": {0: SHORT_ENTRY, 1: SHORT_EXIT}, "B": {0: SHORT_ENTRY}}
    account = trade_book(frames, signals, TWO_SHORTS)
    (a,), (b,) = account.trades
    assert (a.reason, a.exit_price, a.fees) == ("liquidation", 170.0, pytest.approx(2_000.0))
    assert (b.reason, b.exit_price, b.fees) == ("liquidation", 100.0, pytest.approx(1_000.0))
    assert account.equity == pytest.approx([10_000, 8_000, 0, 0])
    assert account.gross == pytest.approx([0.0, 2.5, 0.0, 0.0])


@pytest.mark.parametrize("names", ["AB", "BA"])
def test_exits_of_one_open_that_ruin_a_book_share_what_is_left_for_their_fees(names: str) -> None:
    # As above, and the second is due as well: 1,000 for fees of 1,700 and 1,000.
    dear, still = names
    frames = {dear: bars_of([100, 100, 170, 100]), still: bars_of([100] * 4)}
    signals = {name: {0: SHORT_ENTRY, 1: SHORT_EXIT} for name in names}
    account = trade_book(frames, signals, TWO_SHORTS)
    fees = [trades[0].fees for trades in account.trades]
    assert fees == pytest.approx([1_000 + 1_700 / 2.7, 1_000 + 1_000 / 2.7])


def test_the_fee_of_a_stop_ruins_a_book_whose_other_positions_may_be_at_their_worst() -> None:
    # Short 200 each for fees of 2,000 each: 46,000 in cash. A's stop costs 22,400 and B may cost
    # 22,380: 1,220 are left, and the fee is 2,240. B does close there, so that to go on would be
    # to go on with less than nothing.
    highs = {"A": [100, 100, 113, 100], "B": [100, 100, 111.9, 100]}
    closes = {"A": [100.0] * 4, "B": [100, 100, 111.9, 100]}
    frames = {name: bars_of([100] * 4, closes[name], highs[name]) for name in "AB"}
    config = replace(
        TWO_SHORTS,
        sizing=FixedFractional(2.0),
        max_leverage=4.0,
        stops=StopRules(stop_loss=0.12),
    )
    account = trade_book(frames, {name: {0: SHORT_ENTRY} for name in "AB"}, config)
    assert account.equity == pytest.approx([10_000, 6_000, 0, 0])
    (a,), (b,) = account.trades
    assert (a.reason, a.exit_price) == ("liquidation", pytest.approx(112.0))
    assert a.fees == pytest.approx(2_000 + 1_220)
    assert (b.reason, b.exit_price) == ("liquidation", pytest.approx(111.9))


def test_a_position_without_a_bar_is_liquidated_when_the_book_is() -> None:
    # Short 100 each; A has no bar on the third day, at whose open B trebles: half of the way.
    days = bars_of([100] * 4)
    frames = {"A": days.drop(index=days.index[[2]]), "B": bars_of([100, 100, 300, 100])}
    config = replace(FREE, max_leverage=2.0)
    account = trade_book(frames, {name: {0: SHORT_ENTRY} for name in "AB"}, config)
    (a,), (b,) = account.trades
    assert (a.exit_price, b.exit_price) == (100.0, 200.0)
    assert (a.reason, a.exit_time, a.at_open) == (b.reason, b.exit_time, b.at_open)


@pytest.mark.parametrize("names", ["AB", "BA"])
def test_a_ruinous_exit_ends_positions_that_have_no_bar_at_that_open(names: str) -> None:
    # As above, but the second has had no bar since the one that it was entered at.
    dear, absent = names
    days = bars_of([100] * 4)
    frames = {dear: bars_of([100, 100, 170, 100]), absent: days.drop(index=days.index[[2]])}
    signals = {dear: {0: SHORT_ENTRY, 1: SHORT_EXIT}, absent: {0: SHORT_ENTRY}}
    account = trade_book(frames, signals, TWO_SHORTS)
    (a,), (b,) = account.trades
    assert a.pnl + b.pnl == pytest.approx(-10_000.0)
    assert (b.reason, b.exit_price, b.bars_held) == ("liquidation", 100.0, 1)


@pytest.mark.parametrize("paid", range(80, 95))
def test_no_trade_of_a_ruined_book_is_lost(paid: int) -> None:
    # C's cover costs more than there is. What is left is nothing but for rounding, which differs
    # with the price that B was bought at.
    frames = {
        "B": bars_of([100, paid, 88, 100], closes=[100, 88, 88, 100]),
        "C": bars_of([100, 90, 100, 100]),
    }
    signals = {"B": {0: LONG_ENTRY}, "C": {0: SHORT_ENTRY, 1: SHORT_EXIT}}
    config = replace(
        FREE, costs=CostModel(2500.0, 0.0), sizing=FixedFractional(1.5), max_leverage=3.0
    )
    account = trade_book(frames, signals, config)
    assert [len(trades) for trades in account.trades] == [1, 1]
    assert sum(trades[0].pnl for trades in account.trades) == pytest.approx(-10_000.0)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, volatility=volatilities, config=configs())
def test_a_book_of_one_asset_is_the_single_run(
    seed: int, volatility: float, config: SimulationConfig
) -> None:
    rng = np.random.default_rng(seed)
    panel, finer = random_market(rng, (45,), volatility, holes=0.1)
    panel = with_config_columns(panel, config)
    events = random_events(rng, 3, panel)
    single = simulate_batch(panel, events, config, finer=finer)
    book = simulate_book(panel, events, config, finer=finer)
    assert np.array_equal(book.equity, single.equity)
    assert np.array_equal(book.ts, panel.ts)
    for name in ("pending", "liquidated", "refused"):
        assert np.array_equal(getattr(book, name), getattr(single, name)), name
    for field in fields(Trades):
        ours, theirs = getattr(book.trades, field.name), getattr(single.trades, field.name)
        equal_nan = ours.dtype.kind == "f"
        assert np.array_equal(ours, theirs, equal_nan=equal_nan), field.name


@settings(max_examples=40, deadline=None)
@given(seed=seeds, volatility=volatilities, config=configs(), rename=st.booleans())
def test_neither_the_order_nor_the_names_of_assets_play_a_part(
    seed: int, volatility: float, config: SimulationConfig, rename: bool
) -> None:
    rng = np.random.default_rng(seed)
    panel, finer = random_market(rng, BOOK_LENGTHS, volatility, holes=0.1)
    panel = with_config_columns(panel, config)
    events = random_events(rng, 2, panel)
    order = rng.permutation(len(panel.assets)).tolist()
    names = [panel.assets[i] for i in order]
    rows = np.concatenate([np.arange(len(panel))[panel.rows_of(name)] for name in names])
    moved_panel, moved_finer = panel.select(names), finer.select(names)
    if rename:
        moved_panel = replace(moved_panel, assets=panel.assets)
        moved_finer = replace(moved_finer, assets=panel.assets)
    plain = simulate_book(panel, events, config, finer=finer)
    other = simulate_book(moved_panel, events[:, rows], config, finer=moved_finer)
    # Sums over assets are rounded in another order.
    scale = 1e-11 * max(config.initial_cash, float(plain.equity.max()))
    np.testing.assert_allclose(other.equity, plain.equity, rtol=1e-11, atol=scale)
    assert np.array_equal(other.refused, plain.refused)
    assert np.array_equal(other.liquidated, plain.liquidated)
    for run in range(len(events)):
        for new, old in enumerate(order):
            moved, stayed = run * len(order) + new, run * len(order) + old
            assert other.pending[moved] == plain.pending[stayed]
            ours = other.trades.take(other.trades.column == moved)
            theirs = plain.trades.take(plain.trades.column == stayed)
            for name in ("entry_ts", "exit_ts", "side", "exit_reason"):
                assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
            for name in ("size", "fees", "exit_price"):
                left, right = getattr(ours, name), getattr(theirs, name)
                np.testing.assert_allclose(left, right, rtol=1e-11, atol=scale, err_msg=name)
