"""Timeframes: names, periods and annualisation (the rows of `dim_timeframe`).

A timeframe divides UTC time into periods `[start, end)`; a bar is stamped with its close,
`end - 1 ms`. Fixed lengths (`4H`, `3D`, `1W` = 7 days from Monday, `1M` = 30 days) share one grid
across all assets; calendar timeframes (`1W_CAL_ISO`, `1M_CAL`) follow the calendar; `_CAL_ANCHOR`
timeframes restart each year, so the last period of a year may be short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

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
_NOMINAL_DAYS = {"MIN": 1 / 1440, "H": 1 / 24, "D": 1.0, "W": 7.0, "M": 30.0, "Y": 365.0}
_MONDAY_US = 4 * DAY_US  # 1970-01-05, a Monday; 1970-01-04 is the Sunday that US weeks begin on
_SUNDAY_US = 3 * DAY_US


@dataclass(frozen=True)
class Timeframe:
    """A bar length and the grid that its bars lie on.

    Attributes:
        name: partition key and SQL value, for example `1D` or `10W_CAL_ANCHOR_ISO`.
        unit: `MIN`, `H`, `D`, `W`, `M` or `Y`.
        quantity: units per bar.
        scheme: `""` for a fixed length, otherwise `CAL`.
        anchored: whether the grid restarts each year.
        week: `ISO` (Monday) or `US` (Sunday) for calendar weeks, otherwise `""`.
        sort_order: position in `dim_timeframe`.
    """

    name: str
    unit: str
    quantity: int
    scheme: str
    anchored: bool
    week: str
    sort_order: int

    @property
    def is_calendar(self) -> bool:
        return self.scheme == "CAL"

    @property
    def is_intraday(self) -> bool:
        return self.unit in ("MIN", "H")

    @property
    def days(self) -> float:
        """Nominal length in days."""
        if self.is_calendar and self.unit == "M":
            return 365 / 12 * self.quantity
        return _NOMINAL_DAYS[self.unit] * self.quantity

    @property
    def bars_per_year(self) -> float:
        """Bars per year of 365 days, for annualisation."""
        return 365.0 / self.days

    @property
    def length_us(self) -> int | None:
        """Length in microseconds, or None where it varies with the calendar."""
        varies = self.is_calendar and (self.unit in ("M", "Y") or self.anchored)
        return None if varies else MICROSECONDS[self.unit] * self.quantity

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

    def _month_bounds(self, instants_us: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        months = instants_us.astype("M8[us]").astype("M8[M]").astype(np.int64)
        step = self.quantity * (12 if self.unit == "Y" else 1)
        if self.anchored:
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


_NAME = re.compile(r"(\d+)(m|H|D|W|M|Y)(?:_(CAL))?(?:_(ANCHOR))?(?:_(ISO|US))?")

_NAMES: tuple[str, ...] = (
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


def _parse(name: str, sort_order: int) -> Timeframe:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"not a timeframe name: {name!r}")
    quantity, unit, scheme, anchor, week = match.groups()
    return Timeframe(
        name=name,
        unit="MIN" if unit == "m" else unit,
        quantity=int(quantity),
        scheme=scheme or "",
        anchored=anchor is not None,
        week=week or "",
        sort_order=sort_order,
    )


TIMEFRAMES: dict[str, Timeframe] = {name: _parse(name, i) for i, name in enumerate(_NAMES)}


def timeframe(name: str) -> Timeframe:
    """The timeframe with this name; hours, days, weeks and years may be lower case.

    `1h` is `1H` and `1d` is `1D`. Minutes and months stay distinct: `1m` is a minute, `1M` a month.

    Raises:
        UnknownName: for a name that does not exist; the message suggests the closest ones.

    Examples:
        >>> timeframe("4h").name, timeframe("1w").name, timeframe("1M").name
        ('4H', '1W', '1M')
    """
    spelled = re.sub(r"(?<=\d)[hdwy](?![a-z])", lambda unit: unit[0].upper(), name)
    if spelled not in TIMEFRAMES:
        raise UnknownName("timeframe", name, TIMEFRAMES)
    return TIMEFRAMES[spelled]
