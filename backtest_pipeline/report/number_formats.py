"""How figures are written on pages and in sentences."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS

Kind = Literal["percent", "ratio", "count", "number", "price", "bps"]
"""How a figure is written: 12.3%, 1.23, 1,234, 1,234.5, 1,234.56 or 15 bps."""

DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_UNITS = {metric.name: metric.unit for metric in (*METRICS, *FAMILY_METRICS)}
_WHOLE = ("trades", "days", "quote currency")
_LONGEST = 1e12  # larger ones have an exponent, or no page would be wide enough
_WHOLE_PERCENT_FROM = 10.0  # +1,000 %: from there on a digit after the point says nothing


def number_format(metric: str) -> str:
    """How a metric is written, as a format of Python and of d3 alike."""
    if _UNITS[metric].startswith("fraction"):
        return ".1%"
    return ",.0f" if _UNITS[metric] in _WHOLE else ".2f"


def shown(metric: str, value: float | None) -> str:
    """A metric's value as plain text; a dash where it is undefined."""
    return "-" if value is None or math.isnan(value) else format(value, number_format(metric))


def kind_of(metric: str) -> Kind:
    """How a metric of docs/metrics.md is written."""
    unit = _UNITS[metric]
    if unit.startswith("fraction") or unit == "probability":
        return "percent"
    if unit == "trials":
        return "number"
    return "count" if unit in _WHOLE else "ratio"


def written(value: float | None, kind: Kind, *, signed: bool = False) -> str:
    """A figure as a report writes it: a true minus, thousands with commas, a dash for none.

    Args:
        value: a fraction for `percent`; None, NaN and infinity are undefined.
        kind: how it is written.
        signed: whether a gain has a plus.

    Examples:
        >>> [written(value, "percent", signed=True) for value in (0.1234, -0.0001)]
        ['+12.3%', '0.0%']
        >>> written(1234.5, "count"), written(2.0, "number"), written(0.000123, "price")
        ('1,234', '2', '0.000123')
    """
    if value is None or not math.isfinite(value):
        return DASH
    text = _digits(abs(value), kind)
    if not any(digit in text for digit in "123456789"):
        return text
    return f"{_MINUS if value < 0 else '+' if signed else ''}{text}"


def _digits(size: float, kind: Kind) -> str:
    if kind == "percent":
        if size >= _LONGEST:
            return f"{100 * size:.2e}%"
        return f"{size:,.0%}" if size >= _WHOLE_PERCENT_FROM else f"{size:,.1%}"
    if size >= _LONGEST:
        return f"{size:.2e}"
    if kind == "count":
        return f"{size:,.0f}"
    if kind == "bps":
        return f"{size:,.0f} bps" if size >= 10 else f"{size:,.3g} bps"
    if kind == "number":
        return f"{size:,.1f}".removesuffix(".0")
    if kind == "price":
        return f"{size:,.2f}" if size >= 1 else f"{size:.3g}"
    return f"{size:,.2f}"


def short(value: float) -> str:
    """A tick of an axis: 5k, 20k, 1.5M, 0.2."""
    for factor, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:g}{letter}".replace("-", _MINUS)
    return f"{value:.6g}".replace("-", _MINUS)


def day(ts_us: int) -> str:
    """A stamp as a date: 16 Oct 2018 (UTC)."""
    stamp = datetime.fromtimestamp(ts_us / 1e6, UTC)
    return f"{stamp.day} {stamp:%b %Y}"


def minute(ts_us: int) -> str:
    """A stamp with its time of day, where that is not midnight: 2018-10-16 04:00 (UTC)."""
    stamp = datetime.fromtimestamp(ts_us / 1e6, UTC)
    return f"{stamp:%Y-%m-%d}" if ts_us % 86_400_000_000 == 0 else f"{stamp:%Y-%m-%d %H:%M}"


def iso_of(ts_us: int) -> str:
    """A stamp in ISO 8601, UTC, to the microsecond."""
    return str(np.datetime64(ts_us, "us")) + "Z"
