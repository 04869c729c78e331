"""Periods against a plain loop over dates and against pandas; names against their grammar."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.timeframes import (
    DAY_US,
    MICROSECONDS,
    SHIPPED,
    Timeframe,
    is_timeframe,
    of_length,
    timeframe,
)

EPOCH, END = date(1970, 1, 1), date(2041, 1, 1)
FIELD = (
    *(f"{n}D" for n in (*range(1, 16), 18, 20, 21, 25, 28, 30, 42, 45, 56, 60, 63, 70, 84, 90)),
    *(
        f"{n}D"
        for n in (
            100,
            110,
            120,
            126,
            130,
            135,
            144,
            160,
            168,
            175,
            189,
            200,
            210,
            225,
            140,
            150,
            180,
            182,
            250,
            252,
            270,
            300,
            360,
            364,
            365,
        )
    ),
    *(f"{n}W" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16, 20, 26, 39, 52)),
    *(f"{n}M" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 18, 24, 36)),
    *(f"{n}Q" for n in (1, 2, 3, 4)),
    *(f"{n}Y" for n in (1, 2, 3, 4, 5, 8, 10, 20)),
    *(
        f"{n}W_CAL{anchor}_{week}"
        for n in (1, 2, 3, 4, 6, 8, 10, 12, 26, 52)
        for anchor in ("", "_ANCHOR")
        for week in ("ISO", "US")
    ),
    *(f"{n}M_CAL{end}" for n in (1, 2, 3, 4, 6, 7, 8, 9, 10, 12) for end in ("", "_ANCHOR")),
    *(f"{n}Q_CAL{end}" for n in (1, 2, 3, 4) for end in ("", "_ANCHOR")),
    *(f"{n}Y_CAL{end}" for n in (1, 2, 3, 4, 5, 10, 20) for end in ("", "_ANCHOR")),
    *(f"{n}m" for n in (1, 3, 5, 10, 15, 20, 30, 45)),
    *(f"{n}H" for n in (1, 2, 3, 4, 6, 8, 12)),
)
"""Those that tables in the field have, and their neighbours."""


def boundaries(tf: Timeframe) -> Iterator[date]:
    """Where periods of whole days begin, by a loop over the calendar."""
    if tf.anchored and tf.unit != "Y":
        for year in range(1969, 2042):
            if tf.unit == "W":
                yield from first_week_days(year, tf)
            else:
                months = tf.quantity * {"M": 1, "Q": 3}[tf.unit]
                yield from (date(year, month, 1) for month in range(1, 13, months))
        return
    if tf.is_calendar and tf.unit != "W":
        months = tf.quantity * {"M": 1, "Q": 3, "Y": 12}[tf.unit]
        for month in range(0, 100 * 12, months):
            yield date(1970 + month // 12, month % 12 + 1, 1)
        return
    day = date(1970, 1, 4 if tf.week == "US" else 5) if tf.unit == "W" else EPOCH
    length = timedelta(days=tf.quantity * {"D": 1, "W": 7, "M": 30, "Y": 365}[tf.unit])
    while day < END + 2 * length:
        yield day
        day += length


def first_week_days(year: int, tf: Timeframe) -> Iterator[date]:
    """First days of the periods of weeks of a year: its first week has January 4th in it."""
    day = first_day = _begin_of_year(year, tf.week)
    while day < _begin_of_year(year + 1, tf.week):
        if (day - first_day).days // 7 % tf.quantity == 0:
            yield day
        day += timedelta(days=7)


def _begin_of_year(year: int, week: str) -> date:
    if week == "ISO":
        return date.fromisocalendar(year, 1, 1)
    fourth = date(year, 1, 4)
    return fourth - timedelta(days=fourth.isoweekday() % 7)


@cache
def starts(name: str) -> np.ndarray:
    days = [(day - EPOCH).days for day in boundaries(timeframe(name))]
    return np.array(days, np.int64) * DAY_US


quantities = st.integers(1, 400)
of_days = st.one_of(
    st.sampled_from([name for name in FIELD if name[-1] not in "mH"]),
    st.builds("{}D".format, quantities),
    st.builds("{}W".format, quantities),
    st.builds("{}M".format, st.integers(1, 300)),
    st.builds("{}Y".format, st.integers(1, 27)),
    st.builds("{}M_CAL".format, st.integers(1, 300)),
    st.builds("{}Q".format, st.integers(1, 100)),
    st.builds("{}Y_CAL".format, st.integers(1, 27)),
    st.builds("{}W_CAL_{}".format, quantities, st.sampled_from(["ISO", "US"])),
    st.builds("{}W_CAL_ANCHOR_{}".format, st.integers(1, 52), st.sampled_from(["ISO", "US"])),
    st.builds("{}M_CAL_ANCHOR".format, st.integers(1, 12)),
    st.builds("{}Q_CAL_ANCHOR".format, st.integers(1, 4)),
)
FROM, UNTIL = 10 * DAY_US, (date(2040, 12, 31) - EPOCH).days * DAY_US


@given(of_days, st.lists(st.integers(FROM, UNTIL), min_size=1, max_size=50))
def test_periods_are_those_of_a_loop_over_the_calendar(name: str, instants: list[int]) -> None:
    known = starts(name)
    near = known[(known > FROM) & (known < UNTIL)]
    at = np.concatenate([instants, near[:500], near[:500] - 1]).astype(np.int64)
    start, end = timeframe(name).period_bounds(at)
    place = np.searchsorted(known, at, side="right") - 1
    np.testing.assert_array_equal(start, known[place])
    np.testing.assert_array_equal(end, known[place + 1])


@pytest.mark.parametrize(
    ("name", "period"),
    [
        *(("1W_CAL_ISO", "W-SUN"), ("1W", "W-SUN"), ("1W_CAL_US", "W-SAT"), ("1M_CAL", "M")),
        *(("3M_CAL", "Q"), ("1Q", "Q"), ("1Q_CAL", "Q"), ("12M_CAL", "Y"), ("4Q", "Y")),
        *(("1Y_CAL", "Y"), ("1W_CAL_ANCHOR_ISO", "W-SUN"), ("1M_CAL_ANCHOR", "M")),
        *(("1Y_CAL_ANCHOR", "Y"), ("3M_CAL_ANCHOR", "Q"), ("12M_CAL_ANCHOR", "Y")),
    ],
)
def test_periods_are_those_of_pandas(name: str, period: str) -> None:
    days = pd.date_range("1970-01-07", "2040-12-31", freq="D")
    periods = days.to_period(period)
    start, end = timeframe(name).period_bounds(days.as_unit("us").asi8)
    np.testing.assert_array_equal(start, periods.start_time.as_unit("us").asi8)
    np.testing.assert_array_equal(end, (periods + 1).start_time.as_unit("us").asi8)


@given(st.sampled_from("mH"), st.integers(1, 3000), st.integers(-(10**15), 3 * 10**15))
def test_periods_within_a_day_are_a_whole_number_of_lengths_since_1970(
    unit: str, quantity: int, instant: int
) -> None:
    start, end = timeframe(f"{quantity}{unit}").period_bounds(np.array([instant]))
    length = MICROSECONDS["MIN" if unit == "m" else "H"] * quantity
    assert (int(end[0]) - int(start[0]), int(start[0]) % length) == (length, 0)
    assert start[0] <= instant < end[0]


def test_the_names_of_the_field_are_all_known_and_spelled_one_way() -> None:
    assert len(set(FIELD)) > 190
    for name in {*FIELD, *SHIPPED}:
        assert timeframe(name).name == name
        letter = name.lstrip("0123456789")[0]
        in_lower_case = name.lower().replace("m", letter, 1) if letter in "mM" else name.lower()
        assert timeframe(in_lower_case).name == name


@pytest.mark.parametrize(
    ("spelled", "name"),
    [("1d", "1D"), ("1h", "1H"), ("1w", "1W"), ("1m", "1m"), ("1M", "1M"), ("1M_cal", "1M_CAL")],
)
def test_spellings_meet_and_a_minute_is_no_month(spelled: str, name: str) -> None:
    assert timeframe(spelled).name == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "D", "0D", "01D", "1", "1X", "-1D", "1.5D", "1 D", " 1D", "1D\n", "\u0661D", "1DD"),
        *("1D_CAL", "1H_CAL", "1m_CAL", "1W_CAL", "1W_ISO", "1M_CAL_ISO", "1D_US", "1W_CAL_CN"),
        *("1W_ANCHOR_ISO", "1Q_ANCHOR", "1M_ANCHOR", "1M_CAL_", "1M__CAL", "1M_CAL_ANCHOR_US"),
        *("53W_CAL_ANCHOR_ISO", "13M_CAL_ANCHOR", "5Q_CAL_ANCHOR"),  # longer than what begins anew
        *("10001D", "28Y", "28Y_CAL", "9999999999999D", "1" * 5000 + "D"),
    ],
)
def test_what_is_no_definition_is_refused(name: str) -> None:
    assert not is_timeframe(name)
    with pytest.raises(UnknownName, match="unknown timeframe"):
        timeframe(name)


def test_months_spelled_like_minutes_are_refused_with_what_was_meant() -> None:
    for spelled, meant in {"1m_cal": "1M_CAL", "9m_cal_anchor": "9M_CAL_ANCHOR"}.items():
        with pytest.raises(UnknownName, match=f"'{spelled}'; did you mean {meant}"):
            timeframe(spelled)


@pytest.mark.parametrize("name", sorted({*FIELD, *SHIPPED}))
def test_bars_per_year_are_counted(name: str) -> None:
    tf = timeframe(name)
    if tf.length_us is not None or not tf.anchored or tf.unit == "Y":
        expected = 365 / tf.days
    else:
        # 400 years repeat. Months count in years of 365 days, weeks in those of the calendar.
        years = [(date(year, 1, 1) - EPOCH).days * DAY_US for year in (2000, 2400)]
        whole = range(years[0] + 3 * DAY_US, years[1] + 3 * DAY_US, 7 * DAY_US)
        n = len(np.unique(tf.period_bounds(np.array(whole))[0]))
        expected = n / 400 * (365 / 365.2425 if tf.unit == "W" else 1)
    assert tf.bars_per_year == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "days"),
    [
        *(("1M_CAL", (28, 31)), ("3M_CAL", (90, 92)), ("1Q", (90, 92)), ("1Y_CAL", (365, 366))),
        *(("2M_CAL_ANCHOR", (59, 62)), ("9M_CAL_ANCHOR", (92, 274)), ("2Y_CAL", (730, 731))),
        *(("10W_CAL_ANCHOR_ISO", (14, 70)), ("2W_CAL_ANCHOR_US", (7, 14)), ("1W", (7, 7))),
        *(("1H", (1 / 24, 1 / 24)), ("6W_CAL_ISO", (42, 42))),
    ],
)
def test_the_shortest_and_the_longest_period(name: str, days: tuple[float, float]) -> None:
    assert timeframe(name).days_range == days


@pytest.mark.parametrize(
    ("length", "name"),
    [
        *((7 * DAY_US, "1W"), (30 * DAY_US, "1M"), (60 * DAY_US, "60D"), (22 * DAY_US, "22D")),
        *((MICROSECONDS["H"] * 2, "2H"), (MICROSECONDS["MIN"] * 45, "45m")),
        *((MICROSECONDS["H"] * 36, "36H"), (90, None), (0, None), (-DAY_US, None)),
        (20_000 * DAY_US, None),
    ],
)
def test_a_fixed_length_has_a_name(length: int, name: str | None) -> None:
    found = of_length(length)
    assert (found and found.name) == name
