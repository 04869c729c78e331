"""How long bars are, from where their stamps lie."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.sources.files.spacing import (
    Judged,
    judge,
    spacing_of,
    timeframe_of_interval,
)

HOUR = 3_600_000_000
START = 1_704_067_200_000_000


def told(*multiples: float, unit: int = 24 * HOUR, others: tuple[int, ...] = ()) -> Judged:
    """The verdict on stamps at these multiples, beside hundred bars of each of other lengths."""
    own = spacing_of(START + np.rint(np.array(multiples) * unit).astype(np.int64))
    beside = [spacing_of(START + np.arange(100) * length) for length in others]
    return judge(own, beside)


def name(judged: Judged) -> str | None:
    return judged.timeframe.name if judged.timeframe else None


MINUTE = HOUR // 60
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("stamps", "others", "expected"),
    [
        ((0, 1, 2), (), "1D"),
        ((0, 1, 3, 4), (), "1D"),
        ((0, 2, 4, 6), (DAY,), "1D"),
        ((0, 2, 4, 6), (), None),
        ((0, 2, 5), (DAY,), "1D"),
        ((0, 7, 14, 21), (DAY,), "1D"),
        (tuple(range(0, 70, 7)), (DAY,), "1W"),
        (tuple(range(0, 70, 7)), (), "1W"),
        (tuple(range(0, 40, 2)), (DAY,), "2D"),
        ((0, 1, 2), (MINUTE, HOUR), "1D"),
        ((0,), (DAY,), "1D"),
        ((0,), (), None),
        # A stray among many is for the validation to skip.
        ((*range(40), 40.37), (), "1D"),
        # What a holiday leaves out, and what a week's end does.
        (tuple(d for d in range(60) if d % 7 < 5), (), "1D"),
        # Months, whose length follows the calendar, are no days with holes.
        ((0, 31, 60, 91, 121, 152, 182, 213), (), None),
        ((0, 31, 60, 91, 121, 152, 182, 213), (DAY,), None),
        ((30, 59, 90, 120), (DAY, HOUR), None),
        # Last working days of months, quarters, and years without a leap day.
        ((30, 59, 88, 120, 151, 179, 212, 242), (DAY,), None),
        ((0, 91, 182, 274, 366), (DAY,), None),
        ((366, 731, 1096), (DAY,), None),
        # One of several timeframes; and three days of one month.
        ((0,), (DAY, 7 * DAY), None),
        ((0, 3, 5), (DAY,), "1D"),
    ],
)
def test_the_timeframe_of_an_asset(
    stamps: tuple[float, ...], others: tuple[int, ...], expected: str | None
) -> None:
    assert name(told(*stamps, others=others)) == expected


def test_both_readings_are_shown() -> None:
    found = told(0, 2, 4, 6)
    assert [tf.name for tf in found.may_be] == ["1D", "2D"]
    assert found.why.endswith("may be bars of 2D, or bars of 1D of which most are missing")


def test_bars_of_months_are_refused_with_the_way_out() -> None:
    assert told(0, 31, 60, 91, others=(DAY,)).why == (
        "bars of calendar months, quarters or years are no base timeframe, for their length "
        "varies; bring finer bars (1D or 1H), of which 1M_CAL is made"
    )


def test_one_stamp_may_be_any_of_the_others() -> None:
    found = told(0, others=(DAY, 7 * DAY))
    assert [tf.name for tf in found.may_be] == ["1W", "1D"]
    assert found.why == "one stamp does not tell how long a bar is, and the others' are 1W, 1D"
    assert told(0, others=(DAY,)).why == "one bar is too few to tell; 1D like the others"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.3, 0.6, 1.0]))
def test_minutes_of_which_any_are_missing_are_minutes(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(rng.random(3000) < share)
    assert name(judge(spacing_of(START + kept * MINUTE), [])) == "1m"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_few_days_among_daily_assets_are_days(seed: int, bars: int) -> None:
    """Never a coarser timeframe, but for stamps that lie on its grid once in 500 times."""
    rng = np.random.default_rng(seed)
    days = np.sort(rng.choice(100, bars, replace=False))
    found = name(told(*days.tolist(), others=(DAY,)))
    on_grid = {k for k in range(2, 100) if len(set(days % k)) == 1}
    assert found == "1D" or any(k ** -(bars - 1.0) < 1 / 500 for k in on_grid)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[("1m", "1m"), ("1h", "1H"), ("1H", "1H"), ("60", "1H"), ("240", "4H"), ("1d", "1D")],
        *[("D", "1D"), ("1D", "1D"), ("1w", "1W"), ("W", "1W"), ("60m", "1H"), ("1hour", "1H")],
        *[("1min", "1m"), ("15minutes", "15m"), ("1day", "1D"), ("24h", "1D")],
        *[("1M", None), ("1mo", None), ("1Mo", None), ("3m", "3m"), ("2h", "2H"), ("1s", None)],
        *[("120", "2H"), ("7d", "1W"), ("8hours", "8H"), ("0", None), ("99999999d", None)],
        *[("", None), ("weekly", None), ("x", None)],
    ],
)
def test_intervals_as_exporters_call_them(text: str, expected: str | None) -> None:
    found = timeframe_of_interval(text)
    assert (found.name if found else None) == expected


def test_stamps_up_to_a_second_before_the_grid_are_on_it() -> None:
    ends = pd.date_range("2024-01-02", periods=30, freq="D").as_unit("us").astype("int64")
    late = np.asarray(ends) - np.tile([1_000, 1_000_000, 1], 10)
    assert name(judge(spacing_of(late), [])) == "1D"
