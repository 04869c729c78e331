"""Scales of charts: values to pixels, stamps to percent of the width, and their ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_DAY_US = 86_400_000_000
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class ValueScale:
    """Values to pixels from the top, for a chart of this height.

    Attributes:
        low, high: values at the bottom and at the top.
        height: pixels.
        log: whether distances are of logarithms; both ends are then above 0.
    """

    low: float
    high: float
    height: float
    log: bool = False

    @staticmethod
    def over(
        values: np.ndarray, height: float, *, log: bool = False, zero: bool = False
    ) -> ValueScale:
        """The scale over all finite values, with a little air; with 0 in it where asked."""
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        log = log and low > 0
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        if log:
            air = max((math.log(high) - math.log(low)) * 0.03, 0.005)
            return ValueScale(low * math.exp(-air), high * math.exp(air), height, log=True)
        air = (high - low) * 0.04 or max(abs(high), 1.0) * 0.01
        return ValueScale(
            low if zero and low == 0 else low - air, high if zero and high == 0 else high + air,
            height,
        )  # fmt: skip

    def y(self, value: np.ndarray | float) -> np.ndarray:
        """Pixels from the top; values outside lie on the edge."""
        inside = np.clip(np.asarray(value, np.float64), self.low, self.high)
        if self.log:
            share = np.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.height * (1.0 - share)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the scale, by 1, 2 and 5 of a power of ten.

        Examples:
            >>> ValueScale(0, 1, 100).ticks(), ValueScale(3000, 150000, 100, log=True).ticks()
            ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [5000.0, 10000.0, 20000.0, 50000.0, 100000.0])
        """
        if self.log and self.high / self.low >= 5:
            return self._log_ticks(most)
        return _even(self.low, self.high, most)

    def _log_ticks(self, most: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in (_STEPS, (1, 5), (1,)):
            ticks = [step * 10.0**power for power in powers for step in steps]
            ticks = [tick for tick in ticks if self.low <= tick <= self.high]
            if len(ticks) <= most:
                return ticks
        return ticks[:: math.ceil(len(ticks) / most)]


def _even(low: float, high: float, most: int) -> list[float]:
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(
        s * power * scale
        for scale in (1, 10, 100)
        for s in _STEPS
        if (high - low) / (s * power * scale) <= most
    )
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) + 0.0 for i in range(count)]


@dataclass(frozen=True)
class TimeScale:
    """Stamps (microseconds since 1970 UTC) to percent of the width."""

    first: int
    last: int

    def x(self, ts: np.ndarray | float) -> np.ndarray:
        """Percent from the left, within 0 and 100."""
        span = max(self.last - self.first, 1)
        return np.clip((np.asarray(ts, np.float64) - self.first) / span * 100.0, 0.0, 100.0)

    def ticks(self) -> list[tuple[int, str]]:
        """Beginnings of years, months or days, at most nine, with their names."""
        days = (self.last - self.first) / _DAY_US
        start, end = (np.datetime64(us, "us") for us in (self.first, self.last))
        for unit, length in (("Y", 365), ("M", 30.4), ("D", 1)):
            if days < 2.5 * length and unit != "D":
                continue
            stamps = np.arange(start.astype(f"M8[{unit}]"), end.astype(f"M8[{unit}]") + 1)
            step = next(n for n in (1, 2, 3, 6, 10, 12, 20, 50, 1000) if len(stamps) / n <= 9)
            every = stamps[_phase(stamps, unit, step) % step == 0]
            about = np.timedelta64((self.last - self.first) // 100, "us")
            inside = every[every.astype("M8[us]") >= start - about]
            return [(int(t.astype("M8[us]").astype(int)), _name(t, unit)) for t in inside]
        return []

    def periods(self) -> list[tuple[int, int, str]]:
        """Months, or days where there are few: first stamp, end, and name."""
        unit = "M" if self.last - self.first > 93 * _DAY_US else "D"
        start, end = (np.datetime64(us, "us") for us in (self.first, self.last))
        stamps = np.arange(start.astype(f"M8[{unit}]"), end.astype(f"M8[{unit}]") + 2)
        edges = stamps.astype("M8[us]").astype(np.int64)
        return [
            (int(edges[i]), int(edges[i + 1]), _name(stamps[i], unit, whole=True))
            for i in range(len(edges) - 1)
        ]


def _phase(stamps: np.ndarray, unit: str, step: int) -> np.ndarray:
    """Numbers that a step divides: years as they are called, months of a year, days in a row."""
    numbers = stamps.astype(np.int64)
    return numbers + 1970 if unit == "Y" else numbers if unit == "M" else numbers - numbers[0]


def _name(stamp: np.datetime64, unit: str, *, whole: bool = False) -> str:
    moment = stamp.astype("M8[D]").item()
    if unit == "Y":
        return f"{moment:%Y}"
    if unit == "M":
        return f"{moment:%b %Y}" if whole or moment.month == 1 else f"{moment:%b}"
    return f"{moment.day} {moment:%b %Y}" if whole else f"{moment.day} {moment:%b}"
