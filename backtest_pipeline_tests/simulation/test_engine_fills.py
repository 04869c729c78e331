"""Single fills of the engine, each counted by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from backtest_pipeline.simulation.pandas_objects.single import simulate
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import (
    bars_of,
    flags,
)


def test_a_signal_fills_at_the_next_open_and_the_last_one_stays_pending() -> None:
    bars = bars_of([100, 200, 300, 400], closes=[110, 210, 310, 410])
    result = simulate(bars, flags(bars, 1), flags(bars, 3), costs=CostModel(0.0, 0.0))
    trade = result.trades.iloc[0].to_dict()
    assert trade["entry_ts"] == bars.index[2]
    assert trade["entry_price"] == 300.0
    assert trade["is_open"]
    assert trade["exit_reason"] == "end_of_data"
    assert trade["exit_price"] == 410.0
    assert result.pending == "flat"
    asked = simulate(bars, flags(bars, 3), flags(bars), costs=CostModel(0.0, 0.0))
    assert asked.pending == "long"
    assert asked.trades.empty


def test_what_is_pending_is_due_at_the_next_open_however_late_orders_are() -> None:
    bars = bars_of([100, 200, 300, 400])
    for delay, signal, pending in ((0, 3, "long"), (1, 3, None), (1, 2, "long"), (2, 1, "long")):
        result = simulate(bars, flags(bars, signal), flags(bars), delay_bars=delay)
        assert result.pending == pending, (delay, signal)
        assert result.trades.empty


def test_a_short_dies_within_the_bar_that_eats_its_equity_and_stays_dead() -> None:
    bars = bars_of([100, 100, 150, 90, 90], highs=[100, 100, 201, 90, 90])
    never = flags(bars)
    result = simulate(bars, never, never, flags(bars, 0, 3), flags(bars, 2, 4))
    assert result.equity.tolist()[2:] == [0.0, 0.0, 0.0]
    assert result.trades["exit_reason"].tolist() == ["liquidation"]
    assert sum(result.trades["pnl"].tolist()) == pytest.approx(-10_000, rel=1e-12)
    assert result.trades["exit_ts"].iloc[0] == bars.index[2]
    assert result.pending is None


@pytest.mark.parametrize("then_long", [False, True])
def test_a_cover_that_the_cash_does_not_pay_for_is_a_liquidation(then_long: bool) -> None:
    # 100 units sold at 99 leave 19,900; buying them back at 198 and 1 % slippage costs 19,998.
    bars = bars_of([100, 100, 150, 198, 100, 100])
    long = flags(bars, 2) if then_long else flags(bars)
    result = simulate(
        bars, long, flags(bars), flags(bars, 0), flags(bars, 2), costs=CostModel(0.0, 100.0)
    )
    assert result.equity.tolist()[3:] == [0.0, 0.0, 0.0]
    assert result.trades["exit_reason"].tolist() == ["liquidation"]
    assert sum(result.trades["pnl"].tolist()) == pytest.approx(-10_000, rel=1e-12)


def test_a_gap_through_ruin_comes_before_the_exit_that_is_due_at_that_open() -> None:
    bars = bars_of([100, 100, 150, 500, 100])
    never = flags(bars)
    result = simulate(bars, never, never, flags(bars, 0), flags(bars, 2))
    assert result.trades["exit_reason"].tolist() == ["liquidation"]
    assert result.equity.iloc[-1] == 0.0


def test_an_entry_after_a_hole_is_flagged_and_fills_at_that_bars_open() -> None:
    bars = bars_of([100, 101, 102, 103, 104, 105])
    bars = bars.drop(bars.index[2])
    result = simulate(bars, flags(bars, 1, 3), flags(bars, 2), costs=CostModel(0.0, 0.0))
    assert result.trades["entry_price"].tolist() == [103.0, 105.0]
    assert result.trades["entry_after_gap"].tolist() == [True, False]
    assert not result.trades[["exit_after_gap", "held_across_gap"]].to_numpy().any()


def test_a_trade_that_is_held_or_left_across_a_hole_is_flagged() -> None:
    bars = bars_of([100.0] * 14)
    bars = bars.drop(bars.index[[3, 8]])  # rows 3 and 7 follow the holes
    entries, exits = flags(bars, 0, 3, 7, 9), flags(bars, 2, 6, 8)
    trades = simulate(bars, entries, exits, costs=CostModel(0.0, 0.0)).trades
    # Left at the open after the first hole, and after the second; without one; open at the end.
    assert trades["exit_after_gap"].tolist() == [True, True, False, False]
    assert trades["held_across_gap"].tolist() == [True, True, False, False]

    stopped = simulate(
        bars_with_a_fall_after_a_hole(), flags(bars, 0), flags(bars), stops=StopRules(stop_loss=0.1)
    ).trades
    assert stopped["exit_reason"].tolist() == ["stop_loss"]
    assert stopped[["exit_after_gap", "held_across_gap"]].to_numpy().tolist() == [[True, True]]

    held = simulate(bars, flags(bars, 0), flags(bars)).trades
    assert held[["exit_after_gap", "held_across_gap"]].to_numpy().tolist() == [[False, True]]


def bars_with_a_fall_after_a_hole() -> pd.DataFrame:
    bars = bars_of([100.0] * 3 + [80.0] * 11)
    return bars.drop(bars.index[[3, 8]])


def test_reversals_split_the_fee_of_their_one_fill() -> None:
    bars = bars_of([100.0] * 6)
    result = simulate(
        bars, flags(bars, 0), flags(bars), flags(bars, 2), flags(bars, 4), costs=CostModel(100, 0)
    )
    assert result.trades["exit_reason"].tolist() == ["reversal", "signal"]
    long, short = result.trades["size"]
    assert result.trades["fees"].tolist() == pytest.approx([2 * long, 2 * short], rel=1e-12)


def test_a_few_billionths_of_a_unit_are_traded_like_any_other_size() -> None:
    bars = bars_of([1e9, 1e9, 2e9, 3e9, 3e9])
    result = simulate(
        bars, flags(bars, 0), flags(bars, 2), costs=CostModel(0.0, 0.0), initial_cash=1.0
    )
    assert result.equity.tolist() == pytest.approx([1.0, 1.0, 2.0, 3.0, 3.0], rel=1e-12)
