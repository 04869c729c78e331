"""Timeframes: definitions, names, periods and annualisation (the rows of `dim_timeframe`).

A timeframe divides UTC time into periods `[start, end)`; a bar is stamped with its close,
`end - 1 ms`. Its name is its definition, `<n><unit>[_CAL[_ANCHOR]][_ISO|_US]`:

- `m`, `H`, `D`, `W`, `M` and `Y` alone are fixed lengths: `1W` is 7 days, `1M` 30, `1Y` 365. All
  assets share one grid, counted from 1970-01-01, that of weeks from Monday 1970-01-05.
- `_CAL` follows the calendar: weeks from Monday (`_ISO`) or Sunday (`_US`), months, quarters and
  years. n of them are counted from January 1970, n weeks from its first Monday or Sunday. Quarters
  have no fixed length, so that `1Q` and `1Q_CAL` have the same periods.
- `_CAL_ANCHOR` counts anew each year, so that a year's last period may be short; whole years are
  counted as in `_CAL`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from backtest_pipeline.market.errors import UnknownName

MICROSECONDS = {
    "MIN": 60_000_000,
    "H": 3_600_000_000,
    "D": 86_400_000_000,
    "W": 7 * 86_400_000_000,
    "M": 30 * 86_400_000_000,
    "Y": 365 * 86_400_000_000,
}
DAY_US = MICROSECONDS["D"]
CLOSE_STAMP_US = 1_000  # a bar is stamped one millisecond before its period ends
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
_MONDAY_US = 4 * DAY_US  # 1970-01-05, a Monday; 1970-01-04 is the Sunday that US weeks begin on
_SUNDAY_US = 3 * DAY_US
_MOST_DAYS = 10_000
# 400 years repeat, in weeks too; of these, 71 have 53 weeks by ISO 8601's rule.
_CYCLE_YEARS, _LONG_YEARS = 400, 71
_CYCLE_DAYS = 146_097


@dataclass(frozen=True)
class Timeframe:
    """A bar length and the grid that its bars lie on.

    Attributes:
        name: partition key and SQL value, for example `1D` or `10W_CAL_ANCHOR_ISO`.
        unit: `MIN`, `H`, `D`, `W`, `M`, `Q` or `Y`.
        quantity: units per bar.
        is_calendar: whether bars follow the calendar instead of having one fixed length.
        anchored: whether the grid restarts each year.
        week: `ISO` (Monday) or `US` (Sunday) for calendar weeks, otherwise `""`.
    """

    name: str
    unit: str
    quantity: int
    is_calendar: bool
    anchored: bool
    week: str

    @property
    def is_intraday(self) -> bool:
        return self.unit in ("MIN", "H")

    @property
    def days(self) -> float:
        """Nominal length in days, in years of 365; a year's short last period does not count."""
        if self.is_calendar and self.unit in _MONTHS:
            return 365 * self._months / 12
        return MICROSECONDS[self.unit] / DAY_US * self.quantity

    @property
    def sort_key(self) -> tuple[float, str]:
        """Orders timeframes by their nominal length."""
        return self.days, self.name

    @property
    def bars_per_year(self) -> float:
        """Bars per year of 365 days, for annualisation; a year's short last period is one."""
        if not self.anchored or self.unit == "Y":
            return 365.0 / self.days
        if self.unit == "W":
            of_52, of_53 = (-(-weeks // self.quantity) for weeks in (52, 53))
            bars = of_52 * (_CYCLE_YEARS - _LONG_YEARS) + of_53 * _LONG_YEARS
            return bars * 365 / _CYCLE_DAYS
        return float(-(-12 // self._months))

    @property
    def length_us(self) -> int | None:
        """Length in microseconds, or None where it varies with the calendar."""
        varies = self.is_calendar and (self.unit in _MONTHS or self.anchored)
        return None if varies else MICROSECONDS[self.unit] * self.quantity

    @property
    def days_range(self) -> tuple[float, float]:
        """Lengths in days of the shortest and of the longest period."""
        if self.length_us is not None:
            return self.length_us / DAY_US, self.length_us / DAY_US
        start, end = self.period_bounds(np.arange(0, _CYCLE_DAYS, 7) * DAY_US)
        lengths = (end - start) / DAY_US
        return float(lengths.min()), float(lengths.max())

    @property
    def _months(self) -> int:
        return _MONTHS[self.unit] * self.quantity

    @cached_property
    def _grid_origin_us(self) -> int:
        if self.unit != "W":
            return 0
        return _SUNDAY_US if self.week == "US" else _MONDAY_US

    def period_bounds(self, instants_us: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start and end of the period that contains each instant.

        Args:
            instants_us: int64 microseconds since 1970 UTC, any shape.

        Returns:
            `(start, end)` of the period `[start, end)`, int64 microseconds, same shape.
        """
        if self.length_us is not None:
            length, origin = self.length_us, self._grid_origin_us
            start = (instants_us - origin) // length * length + origin
            return start, start + length
        if self.unit == "W":
            return self._anchored_week_bounds(instants_us)
        return self._month_bounds(instants_us)

    def last_closes(self, at_us: int) -> tuple[int, int]:
        """When the last two periods that are over at an instant ended, the later one first.

        Args:
            at_us: microseconds since 1970 UTC.

        Examples:
            >>> hour = 3_600_000_000
            >>> [us // hour for us in timeframe("4H").last_closes(9 * hour)]
            [8, 4]
        """
        last = int(self.period_bounds(np.array([at_us]))[0][0])
        return last, int(self.period_bounds(np.array([last - 1]))[0][0])

    def _month_bounds(self, instants_us: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        months = instants_us.astype("M8[us]").astype("M8[M]").astype(np.int64)
        step = self._months
        if self.anchored and step < 12:
            year = months // 12 * 12
            first = year + (months - year) // step * step
            last = np.minimum(first + step, year + 12)
        else:
            first = months // step * step
            last = first + step
        return _months_to_us(first), _months_to_us(last)

    def _anchored_week_bounds(self, instants_us: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A week belongs to the year of its fourth day (ISO 8601; US weeks follow the same rule,
        # counted from Sunday).
        week = MICROSECONDS["W"]
        origin = self._grid_origin_us
        this_week = (instants_us - origin) // week
        year = (this_week * week + origin + 3 * DAY_US).astype("M8[us]").astype("M8[Y]")
        first_week = _first_week_of(year, origin)
        next_first_week = _first_week_of(year + 1, origin)
        start = first_week + (this_week - first_week) // self.quantity * self.quantity
        end = np.minimum(start + self.quantity, next_first_week)
        return start * week + origin, end * week + origin


def _months_to_us(months: np.ndarray) -> np.ndarray:
    return months.astype("M8[M]").astype("M8[us]").astype(np.int64)


def _first_week_of(year: np.ndarray, origin: int) -> np.ndarray:
    """Index of the first week whose fourth day is in `year`."""
    january_first = year.astype("M8[us]").astype(np.int64)
    return -((origin + 3 * DAY_US - january_first) // MICROSECONDS["W"])


SHIPPED: tuple[str, ...] = (
    *("1m", "5m", "15m", "30m", "1H", "4H", "12H"),
    *(f"{n}D" for n in (1, 2, 3, 4, 5, 6, 10, 15, 20, 45, 60, 90, 180)),
    *(f"{n}W" for n in (1, 2, 3, 4, 6, 8, 10)),
    *(f"{n}M" for n in (1, 2, 3, 6, 9)),
    "1Y",
    *(f"{n}W_CAL_{week}" for n in (1, 2, 3, 4, 6, 8, 10) for week in ("ISO", "US")),
    *(f"{n}M_CAL" for n in (1, 2, 3, 6)),
    "1Y_CAL",
    *(f"{n}W_CAL_ANCHOR_{week}" for n in (2, 3, 4, 6, 8, 10) for week in ("ISO", "US")),
    *(f"{n}M_CAL_ANCHOR" for n in (2, 3, 6)),
)
"""The timeframes that every store has a row of. Where two have the same fixed length, bars of
which only the distance is known are of the first."""

_SPELLING = re.compile(r"([0-9]{1,8})([a-zA-Z])([a-zA-Z_]*)")
_NAME = re.compile(r"([1-9][0-9]{0,7})([mHDWMQY])(_CAL)?(_ANCHOR)?(?:_(ISO|US))?")
_LONGEST_ANCHORED = {"W": 52, "M": 12, "Q": 4, "Y": _MOST_DAYS}


@lru_cache(maxsize=10_000)
def _parsed(name: str) -> Timeframe | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    digits, letter, calendar, anchor, week = match.groups()
    unit, quantity = "MIN" if letter == "m" else letter, int(digits)
    is_calendar = calendar is not None or unit == "Q"
    is_sound = (
        (calendar is None or unit in _LONGEST_ANCHORED)
        and (anchor is None or (calendar is not None and quantity <= _LONGEST_ANCHORED[unit]))
        and (week is not None) == (calendar is not None and unit == "W")
    )
    found = Timeframe(name, unit, quantity, is_calendar, anchor is not None, week or "")
    return found if is_sound and found.days <= _MOST_DAYS else None


def is_timeframe(name: str) -> bool:
    """Whether this is the name of a timeframe, to the letter."""
    return _parsed(name) is not None


def timeframe(name: str) -> Timeframe:
    """The timeframe with this name, in upper or lower case but for minutes and months.

    `1h` is `1H` and `1d` is `1D`, while `1m` is a minute and `1M` a month; so `1m_cal`, for which
    there is no minute, is refused.

    Raises:
        UnknownName: for a name that is no definition; the message suggests the closest ones.

    Examples:
        >>> timeframe("4h").name, timeframe("1w_cal_iso").name, timeframe("9M").name
        ('4H', '1W_CAL_ISO', '9M')
    """
    match = _SPELLING.fullmatch(name)
    found = None
    if match is not None:
        digits, letter, rest = match.groups()
        found = _parsed(digits + (letter if letter in "mM" else letter.upper()) + rest.upper())
    if found is None:
        meant = name.upper()
        raise UnknownName("timeframe", name, [*SHIPPED, *([meant] if is_timeframe(meant) else ())])
    return found


def canonical(name: str) -> str:
    """The name of a timeframe as it is spelled here; what is none of them as it was given."""
    try:
        return timeframe(name).name
    except UnknownName:
        return name


def of_length(length_us: int) -> Timeframe | None:
    """The timeframe of a fixed length in microseconds; None where no name has it."""
    shipped = (timeframe(name) for name in SHIPPED)
    for found in shipped:
        if not found.is_calendar and found.length_us == length_us:
            return found
    for unit, letter in (("D", "D"), ("H", "H"), ("MIN", "m")):
        if length_us > 0 and length_us % MICROSECONDS[unit] == 0:
            return _parsed(f"{length_us // MICROSECONDS[unit]}{letter}")
    return None
