"""Funding, with numbers that a pencil can check: 100 units held at 100 unless a test says more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import pytest

from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.by_hand import trade_one
from backtest_pipeline_tests.simulation.markets import bars_of

FREE = SimulationConfig(CostModel(0.0, 0.0))
LONG, SHORT = {0: LONG_ENTRY}, {0: SHORT_ENTRY}


def flat(bps_day: float) -> SimulationConfig:
    return replace(FREE, costs=CostModel(0.0, 0.0, bps_day))


def rates(**at: float) -> pd.Series:
    """Rates by stamps like `d3_08h00` of January 2024."""
    stamps = pd.to_datetime([f"2024-01-{s}" for s in at], format="%Y-%m-d%d_%Hh%M", utc=True)
    return pd.Series(list(at.values()), stamps)


def test_funding_is_the_rate_times_the_units_times_the_close() -> None:
    bars = bars_of([100] * 3, closes=[100, 110, 120])
    account = trade_one(bars, LONG, flat(10.0))
    assert account.trades[0][0].funding == pytest.approx(11.0 + 12.0)
    assert account.equity == pytest.approx([10_000, 11_000 - 11, 12_000 - 23])


@pytest.mark.parametrize(
    ("signals", "bps", "paid"),
    [(LONG, 10.0, 10.0), (LONG, -10.0, -10.0), (SHORT, 10.0, -10.0), (SHORT, -10.0, 10.0)],
)
def test_longs_pay_a_positive_rate_and_shorts_receive_it(
    signals: dict[int, int], bps: float, paid: float
) -> None:
    account = trade_one(bars_of([100] * 2), signals, flat(bps))
    assert account.trades[0][0].funding == pytest.approx(paid)
    assert account.equity == pytest.approx([10_000, 10_000 - paid])


def test_funding_is_paid_only_while_in_position() -> None:
    # Held at the closes of bars 1 and 2; bar 3 is left at its open.
    account = trade_one(bars_of([100] * 6), {**LONG, 2: LONG_EXIT}, flat(10.0))
    assert account.trades[0][0].funding == pytest.approx(20.0)
    assert account.equity == pytest.approx([10_000, 9_990, 9_980, 9_980, 9_980, 9_980])


def test_a_day_has_six_bars_of_four_hours_and_they_pay_what_it_pays() -> None:
    bars = bars_of([100] * 7, freq="4h")
    account = trade_one(bars, LONG, flat(12.0), name="4H")
    assert account.trades[0][0].funding == pytest.approx(12.0)


def test_a_month_pays_for_its_own_days() -> None:
    # January's signal holds through February, which had 29 days in 2024, and March with 31.
    account = trade_one(bars_of([100] * 3, freq="MS"), LONG, flat(1.0), name="1M_CAL")
    assert account.equity == pytest.approx([10_000, 10_000 - 29, 10_000 - 60])


def test_a_bar_pays_the_rates_after_its_open_up_to_its_close() -> None:
    # Bar 1 is January 2: midnight at its open belongs to bar 0, midnight at its end to it.
    table = rates(d2_00h00=0.5, d2_08h00=0.001, d2_16h00=0.002, d3_00h00=0.004, d3_08h00=0.25)
    account = trade_one(bars_of([100] * 2), LONG, FREE, table)
    assert account.trades[0][0].funding == pytest.approx(70.0)


@pytest.mark.parametrize("late_ms", [-29_000, -7, 0, 7, 29_000])
def test_a_stamp_a_little_off_the_border_stays_with_its_bar(late_ms: int) -> None:
    table = rates(d2_00h00=0.5, d3_00h00=0.001, d4_00h00=0.25)
    table.index = table.index + pd.Timedelta(late_ms, "ms")
    account = trade_one(bars_of([100] * 2), LONG, FREE, table)
    assert account.trades[0][0].funding == pytest.approx(10.0)


def test_a_table_takes_the_place_of_the_flat_rate() -> None:
    account = trade_one(bars_of([100] * 3), LONG, flat(50.0), rates(d2_08h00=0.001))
    assert account.trades[0][0].funding == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("signals", "bps", "paid"),
    [(LONG, 10.0, 10.0), (LONG, -10.0, 0.0), (SHORT, 10.0, 0.0), (SHORT, -10.0, 10.0)],
)
def test_a_position_that_a_stop_ends_pays_the_bars_funding_but_receives_nothing(
    signals: dict[int, int], bps: float, paid: float
) -> None:
    bars = bars_of([100] * 2, highs=[100, 110], lows=[100, 90])
    config = replace(flat(bps), stops=StopRules(stop_loss=0.05))
    (trade,) = trade_one(bars, signals, config).trades[0]
    assert trade.reason == "stop_loss"
    assert trade.funding == pytest.approx(paid)
    assert trade.pnl == pytest.approx(-500.0 - paid)


def test_a_position_that_is_left_at_the_open_pays_nothing_of_that_bar() -> None:
    signals = {**SHORT, 1: SHORT_EXIT}
    (trade,) = trade_one(bars_of([100] * 3), signals, flat(-10.0)).trades[0]
    assert trade.funding == pytest.approx(10.0)


def test_each_side_of_a_reversal_pays_its_own_bars() -> None:
    account = trade_one(bars_of([100] * 5), {**LONG, 2: SHORT_ENTRY}, flat(10.0))
    long, short = account.trades[0]
    assert long.funding == pytest.approx(20.0)
    assert short.funding == pytest.approx(-0.1 * short.size * 2)


def with_a_hole(
    prices: Sequence[float], missing: slice, opens: Sequence[float] | None = None
) -> pd.DataFrame:
    bars = bars_of(opens or prices, closes=prices)
    return bars.drop(bars.index[missing])


@pytest.mark.parametrize(("signals", "paid"), [(LONG, 90.0), (SHORT, -90.0)])
def test_a_position_pays_for_the_days_of_a_hole_that_it_is_held_through(
    signals: dict[int, int], paid: float
) -> None:
    # Entered at the open of day 1; days 3 to 7 have no bar; day 9 is the last: nine days held.
    account = trade_one(with_a_hole([100] * 10, slice(3, 8)), signals, flat(10.0))
    assert account.trades[0][0].funding == pytest.approx(paid)
    assert account.equity[-1] == pytest.approx(10_000 - paid)


def test_what_is_left_at_the_open_after_a_hole_pays_for_the_hole_at_that_open() -> None:
    bars = with_a_hole([100] * 8 + [200] * 2, slice(3, 8), [100] * 8 + [200] * 2)
    (trade,) = trade_one(bars, {**LONG, 2: LONG_EXIT}, flat(10.0)).trades[0]
    # Two days at 100, then five days of the hole at the open of 200.
    assert trade.funding == pytest.approx(2 * 10.0 + 5 * 20.0)
    assert trade.bars_held == 2


def test_an_entry_after_a_hole_does_not_pay_for_the_hole() -> None:
    bars = with_a_hole([100] * 6, slice(1, 4))
    (trade,) = trade_one(bars, LONG, flat(10.0)).trades[0]
    assert trade.funding == pytest.approx(20.0)


def test_rates_within_a_hole_are_charged_to_what_is_held_through_it() -> None:
    bars = with_a_hole([100] * 8, slice(2, 5))
    table = rates(
        **{f"d{day}_{hour:02}h00": 0.001 for day in range(1, 9) for hour in (0, 8, 16)},
        d9_00h00=0.001,
    )
    account = trade_one(bars, LONG, FREE, table)
    # From the open of the second day to the end of the eighth: seven days of three rates each.
    assert account.trades[0][0].funding == pytest.approx(7 * 3 * 10.0)


def test_the_funding_of_a_hole_can_ruin_at_the_open_after_it() -> None:
    config = replace(flat(1_000.0), max_leverage=1.0)
    account = trade_one(with_a_hole([100] * 20, slice(2, 18)), LONG, config)
    (trade,) = account.trades[0]
    assert trade.reason == "liquidation"
    assert account.equity[-1] == 0.0
