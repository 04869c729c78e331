"""Which bars to choose parameters on, and which to judge the choice on.

A fold's training bars never reach into its test, nor up to it: *purge* leaves out the last bars
before a test, whose trades and indicators overlap it, and *embargo* a share more, because returns
next to each other resemble each other (Lopez de Prado 2018, "Advances in Financial Machine
Learning", chapter 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import BadRange, InvalidInput, NotEnoughBars
from backtest_pipeline.research.validation.choices import Mode, mode_of

Length = float | str | timedelta  # a number counts days

LEAST_FILLED = 0.5
"""Share of a window's time that must have bars: what is chosen on less than half of a training
window answers another question than the one that was asked, and so does a figure of less than half
of a test window."""
LONGEST = timedelta(days=36_525)
HOLE = timedelta(days=7)
"""Time between two bars from which on it is a hole: markets close over weekends and holidays."""


@dataclass(frozen=True)
class Fold:
    """One training window and the test window after it.

    Attributes:
        number: from 0 on.
        train: int64, positions of the bars to choose on, purge and embargo left out.
        test: int64, positions of the bars to judge on, all later than those of `train`.
        train_start: UTC, first instant of the training window.
        train_end: UTC, end of the training window, itself not included.
        test_start: UTC, first instant of the test window.
        test_end: UTC, end of the test window, itself not included.
    """

    number: int
    train: np.ndarray
    test: np.ndarray
    train_start: pd.Timestamp
    train_end: pd.Timestamp
    test_start: pd.Timestamp
    test_end: pd.Timestamp


@dataclass(frozen=True)
class LeftOut:
    """A pair of windows that makes no fold, because one of them has too few bars.

    Attributes:
        train_filled, test_filled: share of each window's time that has bars; one of them is below
            LEAST_FILLED.
        train_start, train_end, test_start, test_end: as those of a Fold.
    """

    train_filled: float
    test_filled: float
    train_start: pd.Timestamp
    train_end: pd.Timestamp
    test_start: pd.Timestamp
    test_end: pd.Timestamp


@dataclass(frozen=True)
class Layout:
    """The folds of some bars in the order of time, and the windows that make none."""

    folds: tuple[Fold, ...]
    left_out: tuple[LeftOut, ...]


def walk_forward_splits(
    index: pd.DatetimeIndex,
    train: Length,
    test: Length,
    step: Length | None = None,
    mode: Mode = "rolling",
    purge: int = 0,
    embargo: float = 0.01,
) -> tuple[Fold, ...]:
    """Windows of calendar time that walk forward through the bars.

    The first training window begins at the first bar; each test window begins where its training
    window ends, and `step` after the one before. `rolling` training windows are `train` long,
    `expanding` ones all begin at the first bar. `anchored` is the trading world's name for
    expanding and means the same (Pardo 2008; Davey 2014, chapter 13). A last test window that the
    bars do not fill is left out. Where `step` equals `test`, the tests follow each other without a
    gap and no bar is tested twice; a longer step leaves bars between them untested.

    Training always lies before its test, so the embargo is a part of the same gap: purge and
    `embargo` times the bars of the training window, rounded up, are left out at its end. It is a
    share of the window and not of the whole history, so that later bars do not change earlier
    folds.

    Args:
        index: stamps of the bars, with a time zone, strictly increasing; bars may be missing.
        train: length of the (first) training window: days, or text such as "365D", or a timedelta.
        test: length of a test window, likewise.
        step: from one test window to the next, likewise; `test` unless given.
        mode: "rolling", "expanding" or "anchored".
        purge: bars.
        embargo: fraction of the bars of a training window.

    Returns:
        The folds in the order of time. A test window in which no bar lies makes no fold, nor do
        windows of which one is filled below LEAST_FILLED; `walk_forward_layout` has the latter.

    Raises:
        InvalidInput: where the bars do not fill one fold (the message counts those missing), no
            training bars are left, `step` is shorter than `test`, or the index is unusable.
        UnknownName: for another mode.
    """
    return walk_forward_layout(index, train, test, step, mode, purge, embargo).folds


def walk_forward_layout(
    index: pd.DatetimeIndex,
    train: Length,
    test: Length,
    step: Length | None = None,
    mode: Mode = "rolling",
    purge: int = 0,
    embargo: float = 0.01,
) -> Layout:
    """The folds of `walk_forward_splits`, and the windows that have too few bars for one."""
    mode = mode_of(mode)
    stamps = _stamps(index)
    train_us, test_us = _length_us("train", train), _length_us("test", test)
    step_us = test_us if step is None else _length_us("step", step)
    if step_us < test_us:
        raise InvalidInput(
            f"step {step!r} is shorter than test {test!r}: bars would be tested more than once"
        )
    # Bars last one bar length more than their stamps span, whichever end of a bar a stamp marks.
    bar_us = _bar_us(stamps)
    first, end = int(stamps[0]), int(stamps[-1]) + bar_us
    missing = first + train_us + test_us - end
    if missing > 0:
        raise NotEnoughBars(
            f"{len(stamps)} bars are too few for one fold of train {train!r} and test {test!r}: "
            f"{ceil(missing / bar_us)} more bars are needed"
        )
    windows = [
        (start - train_us if mode == "rolling" else first, start, start, start + test_us)
        for start in range(first + train_us, end - test_us + 1, step_us)
    ]
    return _layout(stamps, windows, purge, embargo)


def fixed_date_layout(
    index: pd.DatetimeIndex,
    windows: Sequence[Sequence[str | datetime]],
    purge: int = 0,
    embargo: float = 0.01,
) -> Layout:
    """Folds between dates that are given, for studies whose periods are agreed upon beforehand.

    Args:
        index: as in `walk_forward_splits`.
        windows: `(train_start, train_end, test_start, test_end)` each; a window begins with its
            start and ends before its end. Dates without a time zone are UTC.
        purge: bars before the test that are left out of training.
        embargo: fraction of the training window's bars left out too, before the test.

    Returns:
        One fold for each of the windows that has bars to train on and to test, as the folds of
        `walk_forward_splits`.

    Raises:
        InvalidInput: where training ends after its test begins, two tests overlap, a window ends
            before it begins, no training bars are left, or no window has bars to test.
    """
    stamps = _stamps(index)
    wanted = sorted((_instants(window) for window in windows), key=lambda instants: instants[2])
    for (*_, previous_end), (_, _, start, _) in pairwise(wanted):
        if start < previous_end:
            begins = pd.to_datetime(start, unit="us", utc=True)
            raise InvalidInput(
                f"the test window from {begins} on overlaps the one before: bars would be tested "
                "more than once"
            )
    return _layout(stamps, wanted, purge, embargo)


def fixed_date_splits(
    index: pd.DatetimeIndex,
    windows: Sequence[Sequence[str | datetime]],
    purge: int = 0,
    embargo: float = 0.01,
) -> tuple[Fold, ...]:
    """The folds of `fixed_date_layout`."""
    return fixed_date_layout(index, windows, purge, embargo).folds


def _layout(
    stamps: np.ndarray, windows: Sequence[tuple[int, int, int, int]], purge: int, embargo: float
) -> Layout:
    """Windows of instants in microseconds UTC to positions of bars."""
    folds: list[Fold] = []
    left_out: list[LeftOut] = []
    holes = _holes(stamps)
    for window in windows:
        first, last, test_first, test_end = np.searchsorted(stamps, window).tolist()
        if test_first == test_end:
            continue
        bounds = pd.to_datetime(list(window), unit="us", utc=True)
        train_filled, test_filled = _filled(holes, *window[:2]), _filled(holes, *window[2:])
        if min(train_filled, test_filled) < LEAST_FILLED:
            left_out.append(LeftOut(train_filled, test_filled, *bounds))
            continue
        gap = gap_bars(purge, embargo, last - first)
        last = min(last, test_first - gap)
        if last <= first:
            raise InvalidInput(
                f"no training bars are left for the test from {bounds[2]} on: the window from "
                f"{bounds[0]} has too few bars for purge and embargo of {gap}"
            )
        train, test = np.arange(first, last), np.arange(test_first, test_end)
        folds.append(Fold(len(folds), train, test, *bounds))
    if not folds:
        raise InvalidInput(
            f"no fold is left: each of {len(left_out)} has a training or test window with bars in "
            f"less than {LEAST_FILLED:.0%} of its time"
            if left_out
            else f"none of the {len(stamps)} bars lies in a test window"
        )
    return Layout(tuple(folds), tuple(left_out))


def _holes(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the holes between the bars begin and end, all time before and after them included."""
    bar = _bar_us(stamps)
    edges = np.concatenate(([-np.inf, stamps[0] - bar], stamps, [stamps[-1] + bar, np.inf]))
    long = np.diff(edges) > max(int(HOLE / timedelta(microseconds=1)), 2 * bar)
    return edges[:-1][long], edges[1:][long]


def _filled(holes: tuple[np.ndarray, np.ndarray], start: int, end: int) -> float:
    """Share of the time from start to end in which no hole is."""
    begin, stop = holes
    lacking = np.clip(np.minimum(stop, end) - np.maximum(begin, start), 0, None).sum()
    return 1.0 - float(lacking) / (end - start)


def _bar_us(stamps: np.ndarray) -> int:
    return int(np.median(np.diff(stamps)))


def gap_bars(purge: int, embargo: float, n_bars: int) -> int:
    """Bars that purge and embargo leave out next to a test.

    Args:
        purge: bars.
        embargo: fraction of `n_bars`, rounded up.
        n_bars: bars that the embargo is a fraction of.

    Raises:
        InvalidInput: for a negative purge, or an embargo outside [0, 1).
    """
    if purge < 0:
        raise InvalidInput(f"purge is a number of bars, not {purge}")
    if not 0 <= embargo < 1:
        raise InvalidInput(f"embargo is a fraction from 0 to below 1, not {embargo}")
    # 0.07 of 100 is 7, whatever a double makes of it.
    return purge + ceil(round(embargo * n_bars, 9))


def _stamps(index: pd.DatetimeIndex) -> np.ndarray:
    """Microseconds UTC of the bars."""
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        raise InvalidInput(
            "splits need a DatetimeIndex with a time zone; tz_localize('UTC') gives it one"
        )
    if index.hasnans or not index.is_monotonic_increasing or not index.is_unique:
        raise InvalidInput("the stamps of the bars must be strictly increasing; sort_index first")
    if len(index) < 2:
        raise InvalidInput(f"splits need two bars at least, not {len(index)}")
    return index.as_unit("us").asi8


def _length_us(name: str, length: Length) -> int:
    """Microseconds of a number of days, a text or a timedelta."""
    try:
        is_text_or_delta = isinstance(length, (str, timedelta))
        delta = pd.Timedelta(length) if is_text_or_delta else pd.Timedelta(days=length)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{name} {length!r} is no length of time; give days, or text such as '365D'"
        ) from error
    if not isinstance(delta, pd.Timedelta) or delta < timedelta(microseconds=1):
        raise InvalidInput(f"{name} {length!r} is not a positive length of time")
    if delta > LONGEST:
        raise InvalidInput(f"{name} {length!r} is longer than 100 years; give days")
    return int(delta // timedelta(microseconds=1))


def _instants(window: Sequence[str | datetime]) -> tuple[int, int, int, int]:
    """Microseconds UTC of the four dates of a window."""
    try:
        dates = pd.to_datetime(list(window), utc=True).as_unit("us")
    except ValueError as error:
        raise BadRange(f"{window!r} has a date that cannot be read") from error
    if len(dates) != 4 or dates.hasnans:
        raise InvalidInput(
            f"a window is (train_start, train_end, test_start, test_end), not {window!r}"
        )
    train_start, train_end, test_start, test_end = dates.asi8.tolist()
    if not train_start < train_end <= test_start < test_end:
        raise BadRange(
            f"train {window[0]} to {window[1]}, test {window[2]} to {window[3]}: training comes "
            "before its test, and each begins before it ends"
        )
    return train_start, train_end, test_start, test_end
