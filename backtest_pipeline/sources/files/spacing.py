"""How long the bars of a file are, from what is written of it and from where its stamps lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.timeframes import (
    DAY_US,
    MICROSECONDS,
    SHIPPED,
    Timeframe,
    of_length,
    timeframe,
)
from backtest_pipeline.sources.stamps import CLOSE_TICK_US

BY_LENGTH = {
    length: tf
    for tf in map(timeframe, reversed(SHIPPED))
    if not tf.is_calendar and (length := tf.length_us) is not None
}
COMMON = tuple(
    length for length in sorted(BY_LENGTH) if length <= DAY_US or BY_LENGTH[length].name == "1W"
)
"""What exchanges give; other lengths are made of these."""
BY_CHANCE = 1 / 500
"""At most; else stamps on a coarse grid may as well be those of finer bars with holes."""
FEWEST_MONTHS = 7
"""Months one behind the other with one stamp each that finer bars with holes have by chance at most
once in a thousand times."""
FEWEST_MONTH_ENDS = 3
"""Stamps that are all the first, or all the last, day of a month: days with holes have three of
them by chance once in 27,000 times."""
_ON_GRID = 0.9  # of the stamps of a long series; the others are strays, for validation to skip
_LONG = 10
_MINUTE_US = MICROSECONDS["MIN"]
_UNITS = {
    **dict.fromkeys(("", "m", "min", "mins", "minute", "minutes"), "MIN"),
    **dict.fromkeys(("h", "hr", "hour", "hours"), "H"),
    **dict.fromkeys(("d", "day", "days"), "D"),
    **dict.fromkeys(("w", "week", "weeks"), "W"),
}


def timeframe_of_interval(text: str) -> Timeframe | None:
    """The base timeframe that an exporter calls `1h`, `60` (minutes), `1D`, `D` or `1hour`.

    None for what is none, such as `1s`, or months, whose length follows the calendar.
    """
    match = re.fullmatch(r"\s*(\d*)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] == "M" or not (match[1] or match[2]):
        return None
    unit = _UNITS.get(match[2].lower())
    return of_length(int(match[1] or 1) * MICROSECONDS[unit]) if unit else None


@dataclass(frozen=True)
class Spacing:
    """What the stamps of one asset say of its bars.

    Attributes:
        bars: how many stamps there are.
        length: greatest common distance of the stamps, microseconds; 0 of a single one.
        timeframe: of that length; None where there is none, or where they follow the calendar.
        is_sure: whether that can be said without other assets.
        is_calendar: whether they are those of calendar months, quarters or years.
    """

    bars: int
    length: int
    timeframe: Timeframe | None
    is_sure: bool
    is_calendar: bool = False

    def may_be(self, finer: int) -> bool:
        """Whether these may be bars of a finer length, most of which are missing."""
        if self.length == 0:
            return True
        if self.length % finer or finer >= self.length:
            return False
        return (self.length / finer) ** -(self.bars - 1.0) >= BY_CHANCE


def spacing_of(ts: np.ndarray) -> Spacing:
    """What the stamps of one asset, in any order and repeated, say of its bars."""
    minute = -(-ts // _MINUTE_US) * _MINUTE_US
    ts = np.unique(np.where(minute - ts <= CLOSE_TICK_US, minute, ts))
    if len(ts) < 2:
        return Spacing(len(ts), 0, None, is_sure=False)
    distance = np.diff(ts)
    length = _length(ts, distance)
    if _is_calendar(ts):
        return Spacing(len(ts), length, None, is_sure=False, is_calendar=True)
    tf = BY_LENGTH.get(length)
    seen = bool((distance == length).any())
    found = Spacing(len(ts), length, tf, is_sure=False)
    finer = max((c for c in COMMON if c < length and length % c == 0), default=0)
    is_sure = tf is not None and seen and (length in COMMON or not found.may_be(finer))
    return Spacing(len(ts), length, tf, is_sure)


def _is_calendar(ts: np.ndarray) -> bool:
    """Whether stamps, sorted and unique, are one a month, or the ends of months or longer."""
    days = ts.astype("M8[us]").astype("M8[D]")
    months = days.astype("M8[M]")
    if len(ts) >= FEWEST_MONTHS and np.all(np.diff(months.astype(np.int64)) == 1):
        return True
    first = (days == months.astype("M8[D]")).all()
    last = ((days + 1) == (months + 1).astype("M8[D]")).all()
    return len(ts) >= FEWEST_MONTH_ENDS and len(np.unique(months)) == len(ts) and bool(first | last)


def _length(ts: np.ndarray, distance: np.ndarray) -> int:
    """The greatest length on whose grid the stamps lie; some of a long series may not."""
    common = int(np.gcd.reduce(distance))
    if common in BY_LENGTH and len(ts) < _LONG:
        return common
    for length in sorted(BY_LENGTH, reverse=True):
        if length < common or length > distance.max():
            continue
        _, counts = np.unique(ts % length, return_counts=True)
        if counts.max() >= _ON_GRID * len(ts) and len(ts) >= _LONG:
            return length
    values, counts = np.unique(distance, return_counts=True)
    return int(values[counts.argmax()])


@dataclass(frozen=True)
class Judged:
    """The timeframe of one asset of a file, or why it has none.

    Attributes:
        timeframe: of its bars; None where nobody can say.
        why: how it was told, or why it could not be.
        is_stated: whether the settings, a column, the file's name or its folders say it.
        may_be: those that it may be where nobody can say.
    """

    timeframe: Timeframe | None
    why: str
    may_be: tuple[Timeframe, ...] = ()
    is_stated: bool = False


def judge(spacing: Spacing, others: Sequence[Spacing]) -> Judged:
    """The timeframe of an asset, from its own stamps and those of the file's other assets.

    Its own stamps decide, unless they may be those of finer bars that others have.
    """
    known = {s.timeframe.name: s.timeframe for s in others if s.is_sure and s.timeframe}
    lengths = sorted((tf.length_us or 0 for tf in known.values()), reverse=True)
    if spacing.timeframe is not None and spacing.timeframe.name in known:
        return Judged(spacing.timeframe, "by the distance of its stamps")
    finer = next((length for length in lengths if spacing.may_be(length)), None)
    if spacing.length == 0 and len(lengths) > 1:
        names = ", ".join(BY_LENGTH[length].name for length in lengths)
        why = f"one stamp does not tell how long a bar is, and the others' are {names}"
        return Judged(None, why, tuple(BY_LENGTH[length] for length in lengths))
    if finer is not None:
        tf, n = BY_LENGTH[finer], spacing.bars
        of_own = f"{n} bars, {apart(spacing.length)}, are" if n > 1 else "one bar is"
        return Judged(tf, f"{of_own} too few to tell; {tf.name} like the others")
    if spacing.is_sure:
        return Judged(spacing.timeframe, "by the distance of its stamps")
    return _unclear(spacing)


def _unclear(spacing: Spacing) -> Judged:
    if spacing.length == 0:
        every = tuple(BY_LENGTH[length] for length in (DAY_US, *COMMON))
        return Judged(None, "one stamp does not tell how long a bar is", every)
    if spacing.is_calendar:
        return Judged(
            None,
            "bars of calendar months, quarters or years are no base timeframe, for their length "
            "varies; bring finer bars (1D or 1H), of which 1M_CAL is made",
        )
    finer = [c for c in COMMON if c < spacing.length and spacing.length % c == 0]
    if spacing.timeframe is None or not finer:
        names = ", ".join(BY_LENGTH[length].name for length in sorted(BY_LENGTH))
        stated = of_length(spacing.length)
        hint = f', or those that you state: timeframe = "{stated.name}"' if stated else ""
        why = f"bars are {apart(spacing.length)}, which is no base timeframe; known: {names}{hint}"
        return Judged(None, why)
    own, other = spacing.timeframe, BY_LENGTH[finer[-1]]
    return Judged(
        None,
        f"{spacing.bars} bars at multiples of {own.name} may be bars of {own.name}, or bars of "
        f"{other.name} of which most are missing",
        (other, own),
    )


def apart(length: int) -> str:
    """A distance for people."""
    return f"{length / _MINUTE_US:g} minutes apart"
