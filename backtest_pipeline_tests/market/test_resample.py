from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.resample import coarsest_base, divides, resample
from backtest_pipeline.market.timeframes import (
    CLOSE_STAMP_US,
    DAY_US,
    MICROSECONDS,
    SHIPPED,
    timeframe,
)
from backtest_pipeline_tests.market.bars import GOOD, close_stamp, panel, same_bits, us

HOUR_US = MICROSECONDS["H"]


def hours(*starts: str) -> list[tuple[int, tuple[float, float, float, float, float]]]:
    return [(close_stamp(start, "1H"), GOOD) for start in starts]


def hourly(begin: str, count: int, missing: tuple[int, ...] = ()) -> Panel:
    first = us(begin)
    rows = [
        (close_stamp(first + i * HOUR_US, "1H"), (i + 1.0, i + 2.0, i + 0.5, i + 1.5, 1.0))
        for i in range(count)
        if i not in missing
    ]
    return panel("1H", {"A": rows})


def test_a_bar_takes_first_open_highest_high_lowest_low_last_close_and_all_volume() -> None:
    four = resample(hourly("2024-01-01T00:00", 8), timeframe("4H"))
    assert four.ts.tolist() == [
        close_stamp("2024-01-01T00:00", "4H"),
        close_stamp("2024-01-01T04:00", "4H"),
    ]
    assert four["open"].tolist() == [1.0, 5.0]
    assert four["high"].tolist() == [5.0, 9.0]
    assert four["low"].tolist() == [0.5, 4.5]
    assert four["close"].tolist() == [4.5, 8.5]
    assert four["volume"].tolist() == [4.0, 4.0]
    assert four["gap_bars"].tolist() == [0.0, 0.0]


def test_a_period_that_began_before_the_first_bar_has_no_bar() -> None:
    four = resample(hourly("2024-01-01T01:00", 7), timeframe("4H"))
    assert four.ts.tolist() == [close_stamp("2024-01-01T04:00", "4H")]


def test_a_period_whose_last_bars_are_missing_is_over_once_a_later_bar_is_there() -> None:
    base = hourly("2024-01-01T00:00", 5, missing=(2, 3))
    four = resample(base, timeframe("4H"))
    assert four.ts.tolist() == [close_stamp("2024-01-01T00:00", "4H")]
    assert four["gap_bars"].tolist() == [2.0]


def test_an_asset_delisted_in_mid_period_has_no_last_bar() -> None:
    four = resample(hourly("2024-01-01T00:00", 7), timeframe("4H"))
    assert four.ts.tolist() == [close_stamp("2024-01-01T00:00", "4H")]


def test_a_period_without_any_base_bar_is_no_row_but_counts_as_missing_in_the_next() -> None:
    base = hourly("2024-01-01T00:00", 12, missing=(3, 4, 5, 6, 7, 9))
    four = resample(base, timeframe("4H"))
    assert four.ts.tolist() == [
        close_stamp("2024-01-01T00:00", "4H"),
        close_stamp("2024-01-01T08:00", "4H"),
    ]
    assert four["gap_bars"].tolist() == [1.0, 5.0]


def test_the_own_timeframe_passes_through_and_learns_its_gaps() -> None:
    base = hourly("2024-01-01T03:00", 6, missing=(2, 3))
    same = resample(base, timeframe("1H"))
    assert all(same[name].tolist() == base[name].tolist() for name in base.columns)
    assert same.ts.tolist() == base.ts.tolist()
    assert same["gap_bars"].tolist() == [0.0, 0.0, 2.0, 0.0]


def test_calendar_months_are_as_long_as_the_calendar_says() -> None:
    days = [(close_stamp(us("2024-01-01") + i * DAY_US), GOOD) for i in range(31 + 29 + 30)]
    months = resample(panel("1D", {"A": days}), timeframe("1M_CAL"))
    assert months.ts.tolist() == [us(end) - CLOSE_STAMP_US for end in ("2024-02-01", "2024-03-01")]
    assert months["volume"].tolist() == [3100.0, 2900.0]


def test_an_empty_panel_stays_empty() -> None:
    empty = resample(panel("1H", {"A": [], "B": []}), timeframe("1D"))
    assert (len(empty), empty.assets, empty.offsets.tolist()) == (0, ("A", "B"), [0, 0, 0])


@pytest.mark.parametrize(
    ("base", "target", "fits"),
    [
        ("1H", "4H", True),
        ("1D", "4H", False),
        ("4H", "1D", True),
        ("2D", "1W", False),
        ("1D", "1M_CAL", True),
        ("1W", "1M_CAL", False),
        ("1W", "10W_CAL_ANCHOR_ISO", True),
        ("1W", "1W_CAL_US", False),
        ("2W", "2W_CAL_ANCHOR_ISO", False),
        ("1M_CAL", "1M_CAL", False),
        ("1D", "1Q", True),
        ("1H", "2Y_CAL", True),
        ("7D", "1W", False),  # from Thursday 1970-01-01, not from Monday
        ("7D", "14D", True),
        ("1W", "2W_CAL_ISO", True),
        ("7D", "1M_CAL", False),
        ("7m", "1D", False),
        ("45m", "3H", True),
    ],
)
def test_a_base_divides_a_target_whose_periods_its_bars_fill(
    base: str, target: str, fits: bool
) -> None:
    assert divides(timeframe(base), timeframe(target)) is fits


def test_bars_that_do_not_fill_the_periods_are_refused() -> None:
    with pytest.raises(InvalidInput, match="4H bars cannot be resampled from 1D"):
        resample(panel("1D", {"A": []}), timeframe("4H"))


def test_the_coarsest_fitting_base_is_chosen() -> None:
    bases = [timeframe(name) for name in ("1m", "1H", "1D", "1W")]
    chosen = {name: coarsest_base(timeframe(name), bases).name for name in ("4H", "1M_CAL", "2W")}
    assert chosen == {"4H": "1H", "1M_CAL": "1D", "2W": "1W"}


def test_where_no_base_fits_the_message_names_those_at_hand() -> None:
    with pytest.raises(InvalidInput, match=r"4H bars cannot be resampled .*\(1D, 1W\)"):
        coarsest_base(timeframe("4H"), [timeframe("1D"), timeframe("1W")])


@st.composite
def base_panels(draw: st.DrawFn, tf: str = "1D", span: int = 60) -> Panel:
    """Bars of a few assets with holes, around a change of year, with uneven prices."""
    step = timeframe(tf).length_us or 0
    origin = us("2023-12-04")  # a Monday
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = {}
    for asset in draw(st.sets(st.sampled_from("ABC"), min_size=1)):
        first, last = sorted(draw(st.tuples(st.integers(0, span), st.integers(0, span))))
        here = rng.random(last - first) > draw(st.sampled_from([0.0, 0.1, 0.7]))
        rows[asset] = []
        for i in np.flatnonzero(here) + first:
            low, a, b, high = np.sort(rng.lognormal(0, 1, 4))
            bar = (float(a), float(high), float(low), float(b), float(rng.lognormal(5, 3)))
            rows[asset].append((close_stamp(origin + int(i) * step, tf), bar))
    return panel(tf, rows)


ADDED = ("7D", "21D", "12M", "1Q", "9M_CAL", "9M_CAL_ANCHOR", "2Y_CAL", "1W_CAL_ANCHOR_US")
FROM_1D = sorted(name for name in (*SHIPPED, *ADDED) if divides(timeframe("1D"), timeframe(name)))
targets = st.sampled_from(FROM_1D)


@given(base_panels(), targets)
def test_an_asset_is_resampled_the_same_alone_and_in_a_batch(base: Panel, target: str) -> None:
    batch = resample(base, timeframe(target))
    for asset in base.assets:
        assert same_bits(resample(base.select([asset]), timeframe(target)), batch.select([asset]))


@given(base_panels(), targets, st.integers(0, 60))
def test_a_bar_does_not_depend_on_base_bars_after_it(base: Panel, target: str, day: int) -> None:
    now = us("2023-12-04") + day * DAY_US
    until_now = resample(base.take(base.ts < now), timeframe(target))
    full = resample(base, timeframe(target))
    for asset in base.assets:
        early, late = until_now.frame(asset), full.frame(asset)
        assert len(early) <= len(late)
        assert early.equals(late.iloc[: len(early)])


@given(base_panels(), targets)
def test_each_bar_is_what_a_plain_loop_over_its_period_says(base: Panel, target: str) -> None:
    tf = timeframe(target)
    bars = resample(base, tf)
    for asset in base.assets:
        days = base.frame(asset)
        stamps = base.ts[base.rows_of(asset)]
        previous_close = None
        for i in range(*bars.rows_of(asset).indices(len(bars))):
            start, end = (int(bound[0]) for bound in tf.period_bounds(bars.ts[i : i + 1]))
            inside = days.loc[(stamps >= start) & (stamps < end)]
            assert bars.ts[i] == end - CLOSE_STAMP_US
            assert start >= stamps[0] + CLOSE_STAMP_US - DAY_US
            assert stamps[-1] >= end - CLOSE_STAMP_US
            assert bars["open"][i] == inside["open"].to_numpy()[0]
            assert bars["high"][i] == inside["high"].max()
            assert bars["low"][i] == inside["low"].min()
            assert bars["close"][i] == inside["close"].to_numpy()[-1]
            assert bars["volume"][i] == pytest.approx(inside["volume"].sum(), rel=1e-12)
            since = start if previous_close is None else previous_close
            present = np.count_nonzero((stamps >= since) & (stamps < end))
            assert bars["gap_bars"][i] == (end - since) // DAY_US - present
            previous_close = end
