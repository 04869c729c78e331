from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.research.validation.choices import Mode
from backtest_pipeline.research.validation.splits import (
    LEAST_FILLED,
    Fold,
    fixed_date_splits,
    gap_bars,
    walk_forward_layout,
    walk_forward_splits,
)


def days(n_bars: int, freq: str = "1D") -> pd.DatetimeIndex:
    return pd.date_range("2018-01-01 23:59:59.999", periods=n_bars, freq=freq, tz="UTC")


def spans(folds: tuple[Fold, ...]) -> list[tuple[int, int, int, int]]:
    return [(int(f.train[0]), int(f.train[-1]), int(f.test[0]), int(f.test[-1])) for f in folds]


def test_2924_daily_bars_give_28_folds() -> None:
    folds = walk_forward_splits(days(2924), 365, 90)
    assert len(folds) == 28
    # 1 % of 365 bars are 3.65, so the embargo is 4 bars.
    assert spans(folds)[:2] == [(0, 360, 365, 454), (90, 450, 455, 544)]
    assert folds[-1].test[-1] == 365 + 28 * 90 - 1


def test_rolling_windows_by_hand() -> None:
    folds = walk_forward_splits(days(12), 5, 3, embargo=0)
    assert spans(folds) == [(0, 4, 5, 7), (3, 7, 8, 10)]
    assert [fold.number for fold in folds] == [0, 1]
    first = folds[0]
    start = days(1)[0]
    assert (first.train_start, first.train_end) == (start, start + timedelta(days=5))
    assert (first.test_start, first.test_end) == (first.train_end, start + timedelta(days=8))


def test_expanding_windows_begin_at_the_first_bar() -> None:
    folds = walk_forward_splits(days(12), 5, 3, mode="expanding", embargo=0)
    assert spans(folds) == [(0, 4, 5, 7), (0, 7, 8, 10)]


def test_anchored_is_another_word_for_expanding() -> None:
    expanding = walk_forward_splits(days(1000), 365, 90, mode="expanding", purge=7)
    anchored = walk_forward_splits(days(1000), 365, 90, mode="anchored", purge=7)
    assert spans(expanding) == spans(anchored)


def test_purge_and_embargo_are_cut_off_before_the_test() -> None:
    folds = walk_forward_splits(days(150), 100, 20, purge=10, embargo=0.07)
    assert spans(folds) == [(0, 82, 100, 119), (20, 102, 120, 139)]


@pytest.mark.parametrize("mode", ["rolling", "expanding"])
def test_later_bars_do_not_change_earlier_folds(mode: Mode) -> None:
    shorter = walk_forward_splits(days(700), 200, 50, mode=mode)
    longer = walk_forward_splits(days(1400), 200, 50, mode=mode)
    assert spans(longer)[: len(shorter)] == spans(shorter)


@pytest.mark.parametrize("length", [90, 90.0, np.int64(90), "90D", timedelta(90), "2160h"])
def test_lengths_may_be_days_or_text_or_timedeltas(length: Any) -> None:
    assert spans(walk_forward_splits(days(900), 365, length)) == spans(
        walk_forward_splits(days(900), 365, 90)
    )


def test_days_are_days_for_intraday_bars_as_well() -> None:
    folds = walk_forward_splits(days(24 * 60, "1h"), 30, 10, embargo=0)
    assert spans(folds)[0] == (0, 24 * 30 - 1, 24 * 30, 24 * 40 - 1)
    assert len(folds) == 3


def test_a_longer_step_leaves_bars_untested() -> None:
    folds = walk_forward_splits(days(30), 10, 4, step=6, embargo=0)
    assert spans(folds) == [(0, 9, 10, 13), (6, 15, 16, 19), (12, 21, 22, 25)]


def test_missing_bars_do_not_shift_the_windows() -> None:
    whole = days(900)
    gappy = whole.delete(np.r_[100:120, 400, 500:510])
    for there, here in zip(
        walk_forward_splits(whole, 365, 90, embargo=0),
        walk_forward_splits(gappy, 365, 90, embargo=0),
        strict=True,
    ):
        assert there.test_start == here.test_start
        assert set(gappy[here.test]) == set(whole[there.test]) & set(gappy)
        assert set(gappy[here.train]) == set(whole[there.train]) & set(gappy)


def test_a_test_window_without_bars_makes_no_fold() -> None:
    index = days(100).delete(np.r_[40:60])
    folds = walk_forward_splits(index, 30, 10, mode="expanding", embargo=0)
    assert [fold.test[0] for fold in folds] == [30, 40, 50, 60, 70]
    assert [fold.number for fold in folds] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("hole", [325, 375])
def test_windows_that_lie_in_a_hole_are_left_out_and_counted(hole: int) -> None:
    index = days(2924).delete(np.r_[1000 : 1000 + hole])
    layout = walk_forward_layout(index, 365, 90)
    whole = walk_forward_splits(days(2924), 365, 90)
    assert min(len(fold.train) for fold in layout.folds) > 170
    assert [fold.number for fold in layout.folds] == list(range(len(layout.folds)))
    assert len(layout.left_out) >= 2
    assert all(min(x.train_filled, x.test_filled) < LEAST_FILLED for x in layout.left_out)
    # The windows that have no bar to test are neither.
    kept = {fold.test_start for fold in layout.folds} | {x.test_start for x in layout.left_out}
    empty = {fold.test_start for fold in whole} - kept
    assert 0 < len(empty) <= hole // 90


def test_a_stock_that_trades_a_quarter_of_the_hours_fills_its_windows() -> None:
    hours = days(24 * 400, "1h")
    open_hours = (hours.hour >= 14) & (hours.hour < 20) & (hours.day_of_week < 5)
    index = hours.delete(np.flatnonzero(~open_hours))
    layout = walk_forward_layout(index, 180, 30)
    assert len(layout.folds) == 7
    assert layout.left_out == ()


def test_where_every_window_has_a_hole_it_is_said() -> None:
    index = days(600).delete(np.r_[100:500])
    with pytest.raises(InvalidInput, match="no fold is left: each of 1 has"):
        walk_forward_layout(index, 400, 100)


def test_another_time_zone_is_the_same_instants() -> None:
    index = days(900)
    there = walk_forward_splits(index.tz_convert("America/New_York"), 365, 90)
    for one, other in zip(there, walk_forward_splits(index, 365, 90), strict=True):
        np.testing.assert_array_equal(one.train, other.train)
        assert one.test_start == other.test_start


@pytest.mark.parametrize("mode", ["rolling", "expanding"])
@pytest.mark.parametrize("purge", [0, 9])
def test_skfolio_walks_forward_in_the_same_way(mode: Mode, purge: int) -> None:
    from skfolio.model_selection import WalkForward

    # skfolio moves the test on by the purge where we shorten the training.
    n_bars = 1000
    theirs = WalkForward(
        test_size=60,
        train_size=200 - purge,
        purged_size=purge,
        expand_train=mode == "expanding",
    ).split(np.empty((n_bars, 1)))
    ours = walk_forward_splits(days(n_bars), 200, 60, mode=mode, purge=purge, embargo=0)
    for fold, (train, test) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(fold.test, test)
        np.testing.assert_array_equal(fold.train, train)


@st.composite
def histories(draw: st.DrawFn) -> pd.DatetimeIndex:
    """Daily or hourly bars with holes, the longest a few bars."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    index = days(draw(st.integers(60, 400)), draw(st.sampled_from(["1D", "4h"])))
    return index[rng.random(len(index)) > draw(st.floats(0, 0.3))]


@given(
    index=histories(),
    train=st.integers(3, 20),
    test=st.integers(2, 10),
    further=st.integers(0, 5),
    mode=st.sampled_from(["rolling", "expanding", "anchored"]),
    purge=st.integers(0, 5),
    embargo=st.floats(0, 0.2),
)
def test_no_bar_is_tested_twice_nor_trained_on_up_to_its_test(
    index: pd.DatetimeIndex,
    train: int,
    test: int,
    further: int,
    mode: Mode,
    purge: int,
    embargo: float,
) -> None:
    try:
        folds = walk_forward_splits(index, train, test, test + further, mode, purge, embargo)
    except InvalidInput as error:
        assert re.search("no training bars|no fold is left|too few", str(error))  # noqa: PT017
        return
    tested = np.concatenate([fold.test for fold in folds])
    assert len(np.unique(tested)) == len(tested)
    assert (np.diff(tested) > 0).all()
    if further == 0:
        np.testing.assert_array_equal(tested, np.arange(tested[0], tested[-1] + 1))
    for fold in folds:
        assert len(fold.train) > 0
        assert fold.train[-1] + purge < fold.test[0]
        np.testing.assert_array_equal(np.diff(fold.train), 1)
        for bars, start, end in (
            (fold.train, fold.train_start, fold.train_end),
            (fold.test, fold.test_start, fold.test_end),
        ):
            assert ((index[bars] >= start) & (index[bars] < end)).all()
        in_window = np.asarray((index >= fold.train_start) & (index < fold.train_end))
        left_out = np.setdiff1d(np.flatnonzero(in_window), fold.train)
        assert len(left_out) == gap_bars(purge, embargo, int(in_window.sum()))
        assert fold.train_end == fold.test_start
        if mode == "rolling":
            assert fold.train_end - fold.train_start == timedelta(days=train)
        else:
            assert fold.train_start == index[0]
    for one, other in pairwise(folds):
        assert (other.test_start - one.test_start) % timedelta(days=test + further) == timedelta(0)


def test_every_year_of_the_real_market_is_tested_once(test_data: Path) -> None:
    bars = pd.read_parquet(test_data / "binance_daily.parquet", columns=["symbol", "ts"])
    long_enough = bars.groupby("symbol").filter(lambda of_symbol: len(of_symbol) >= 365 + 90)
    for symbol, ts in long_enough.groupby("symbol")["ts"]:
        folds = walk_forward_splits(pd.DatetimeIndex(ts), 365, 90, purge=50)
        tested = np.concatenate([fold.test for fold in folds])
        np.testing.assert_array_equal(tested, np.arange(365, 365 + 90 * len(folds)))
        assert 0 <= len(ts) - 1 - tested[-1] < 90, f"{symbol}: bars of a whole test are left over"


def test_fixed_dates_by_hand() -> None:
    index = days(400)
    folds = fixed_date_splits(
        index,
        [
            ("2018-05-01", "2018-07-01", "2018-07-11", "2018-08-01"),
            ("2018-01-01", "2018-04-01", "2018-04-01", datetime(2018, 5, 1, tzinfo=UTC)),
        ],
        purge=5,
        embargo=0.01,
    )
    # Sorted by their tests; 1 % of 90 and of 61 bars is one bar, and the ten days between the
    # second training and its test are gap enough.
    assert spans(folds) == [(0, 83, 90, 119), (120, 180, 191, 211)]


ONE = ("2018-01-01", "2018-02-01", "2018-02-01", "2018-03-01")


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([("2018-01-01", "2018-02-10", "2018-02-01", "2018-03-01")], "before its test"),
        ([("2018-02-01", "2018-01-01", "2018-02-01", "2018-03-01")], "before it ends"),
        ([("2018-01-01", "2018-02-01", "2018-03-01", "2018-03-01")], "before it ends"),
        ([ONE, ("2018-01-01", "2018-02-01", "2018-02-20", "2018-04-01")], "2018-02-20.*overlaps"),
        ([("2030-01-01", "2030-02-01", "2030-03-01", "2030-04-01")], "none of the 100 bars"),
        ([], "none of the 100 bars"),
        ([("2017-01-01", "2017-02-01", "2018-02-01", "2018-03-01")], "no fold is left"),
        ([("2018-01-01", "2018-02-01", "2018-02-01")], "a window is"),
        ([("2018-01-01", "2018-02-01", "2018-02-01", None)], "a window is"),
        ([("2018-01-01", "2018-02-01", "2018-02-01", "soon")], "cannot be read"),
    ],
)
def test_dates_that_make_no_fold_are_refused(windows: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fixed_date_splits(days(100), windows)


GOOD: dict[str, Any] = {"index": days(900), "train": 365, "test": 90}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index": days(454)}, "454 bars are too few .*: 1 more bars are needed"),
        ({"index": days(400)}, "55 more bars are needed"),
        ({"index": days(400, "4h"), "train": 60, "test": 10}, ": 20 more bars are needed"),
        ({"index": days(1)}, "two bars at least, not 1"),
        ({"index": days(900).tz_localize(None)}, "time zone"),
        ({"index": pd.RangeIndex(900)}, "time zone"),
        ({"index": days(900)[::-1]}, "strictly increasing"),
        ({"index": days(900).append(days(900))}, "strictly increasing"),
        ({"index": days(900).insert(900, pd.NaT)}, "strictly increasing"),
        ({"step": 89}, "step 89 is shorter than test 90"),
        ({"train": 0}, "train 0 is not a positive"),
        ({"test": -5}, "test -5 is not a positive"),
        ({"test": "NaT"}, "test 'NaT' is not a positive"),
        ({"train": "a year"}, "train 'a year' is no length of time"),
        ({"train": 1e20}, "train 1e[+]20 is no length of time"),
        ({"purge": -1}, "purge is a number of bars, not -1"),
        ({"embargo": 1.0}, "embargo is a fraction"),
        ({"embargo": -0.01}, "embargo is a fraction"),
        ({"purge": 400}, "no training bars are left for the test from 2019-01-01"),
        ({"index": days(900).delete(np.r_[150:640])}, "no fold is left: each of 2 has"),
        ({"index": days(900).delete(np.r_[5:899])}, "none of the 6 bars lies in a test window"),
    ],
)
def test_what_cannot_be_split_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        walk_forward_splits(**(GOOD | arguments))


def test_an_unknown_mode_is_told_its_neighbours() -> None:
    arguments: dict[str, Any] = GOOD | {"mode": "roling"}
    with pytest.raises(UnknownName, match="did you mean rolling"):
        walk_forward_splits(**arguments)
