"""Many assets on one account, with numbers that a pencil can check: 10,000 in cash, no costs."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.book import simulate_book
from backtest_pipeline.simulation.config import SimulationConfig, with_config_columns
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY
from backtest_pipeline.simulation.sizing import EqualWeight, FixedFractional
from backtest_pipeline.simulation.stops import StopRules
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline_tests.simulation.assumptions import configs, seeds, volatilities
from backtest_pipeline_tests.simulation.by_hand import trade_book
from backtest_pipeline_tests.simulation.markets import bars_of, random_events, random_market
from backtest_pipeline_tests.simulation.reference import Account

FREE = SimulationConfig(CostModel(0.0, 0.0))
HALF = replace(FREE, sizing=FixedFractional(0.5))


def sizes(account: Account) -> list[list[Any]]:
    """Sizes by asset, which compare with a relative tolerance of 1e-12."""
    return [[pytest.approx(t.size, rel=1e-12) for t in trades] for trades in account.trades]


def test_sales_of_an_open_pay_for_its_purchases() -> None:
    still = bars_of([100] * 5)
    for names in (("A", "B"), ("B", "A")):
        signals = {"A": {0: LONG_ENTRY, 2: LONG_EXIT}, "B": {2: LONG_ENTRY}}
        account = trade_book(dict.fromkeys(names, still), signals, FREE)
        assert [t.entry_bar for trades in account.trades for t in trades] in ([1, 3], [3, 1])
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
    assert account.refused == 1


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
        assert np.array_equal(ours, theirs), field.name


@settings(max_examples=40, deadline=None)
@given(seed=seeds, volatility=volatilities, config=configs())
def test_the_order_of_assets_plays_no_part(
    seed: int, volatility: float, config: SimulationConfig
) -> None:
    rng = np.random.default_rng(seed)
    panel, finer = random_market(rng, (30, 40, 0, 25), volatility, holes=0.1)
    panel = with_config_columns(panel, config)
    events = random_events(rng, 2, panel)
    order = rng.permutation(len(panel.assets))
    names = [panel.assets[i] for i in order]
    rows = np.concatenate([np.arange(len(panel))[panel.rows_of(name)] for name in names])
    plain = simulate_book(panel, events, config, finer=finer)
    other = simulate_book(panel.select(names), events[:, rows], config, finer=finer.select(names))
    # Sums over assets are rounded in another order.
    scale = 1e-11 * max(config.initial_cash, float(plain.equity.max()))
    np.testing.assert_allclose(other.equity, plain.equity, rtol=1e-11, atol=scale)
    assert np.array_equal(other.refused, plain.refused)
    assert np.array_equal(other.liquidated, plain.liquidated)
    n = len(names)
    for run in range(len(events)):
        for new, old in enumerate(order.tolist()):
            assert other.pending[run * n + new] == plain.pending[run * n + old]
            moved = other.trades.take(other.trades.column == run * n + new)
            stayed = plain.trades.take(plain.trades.column == run * n + old)
            for name in ("entry_ts", "exit_ts", "side", "exit_reason"):
                assert np.array_equal(getattr(moved, name), getattr(stayed, name)), name
            np.testing.assert_allclose(moved.size, stayed.size, rtol=1e-11, atol=scale)
