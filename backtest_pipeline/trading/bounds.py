"""Bounds checks for the numbers of a run's assumptions."""

from __future__ import annotations

import math
from numbers import Integral, Real

from backtest_pipeline.market.errors import InvalidInput


def require_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Raises InvalidInput, naming the argument, unless it is a finite number within the bounds."""
    bounds = {"above": above, "at least": least, "below": below, "at most": most}
    allowed = " and ".join(f"{word} {b:,g}" for word, b in bounds.items() if b is not None)
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if (
        not math.isfinite(number)
        or (above is not None and number <= above)
        or (least is not None and number < least)
        or (below is not None and number >= below)
        or (most is not None and number > most)
    ):
        percent = 1 in (below, most) and 1 <= number <= 100
        hint = f"; it is a fraction, {number:g} % is {number / 100:g}" if percent else ""
        raise InvalidInput(f"{name} must be {allowed or 'a finite number'}, not {value!r}{hint}")


MOST = 2**31 - 1
"""The largest whole number that an argument may be: no series has more bars."""


def require_whole(name: str, value: object, *, least: int) -> None:
    """Raises InvalidInput, naming the argument, unless a whole number from `least` to MOST."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{name} must be a whole number of at least {least}, not {value!r}")
    if int(value) > MOST:
        raise InvalidInput(f"{name} must be at most {MOST:,}, not {value!r}")
