"""What the slow simulator's sizing and stops read of the past, by plain loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from backtest_pipeline_tests.simulation.reference_trade import NAN, Bar


def average_true_range(bars: list[Bar], period: int) -> list[float]:
    """Wilder's average true range at each bar's close.

    The mean of the first `period` true ranges, then `(previous x (period - 1) + range) / period`.
    The first bar has no close before it, and so no true range.
    """
    ranges = [
        max(bar.high, before.close) - min(bar.low, before.close)
        for before, bar in itertools.pairwise(bars)
    ]
    out = [NAN] * len(bars)
    for t in range(period, len(bars)):
        if t == period:
            out[t] = sum(ranges[:period]) / period
        else:
            out[t] = (out[t - 1] * (period - 1) + ranges[t - 1]) / period
    return out


def volatility(bars: list[Bar], lookback: int, bars_per_year: float) -> list[float]:
    """Annual standard deviation of the last `lookback` returns at each bar's close, ddof 1."""
    returns = [bar.close / before.close - 1 for before, bar in itertools.pairwise(bars)]
    out = [NAN] * len(bars)
    for t in range(lookback, len(bars)):
        last = returns[t - lookback : t]
        mean = sum(last) / lookback
        variance = sum((r - mean) ** 2 for r in last) / (lookback - 1)
        out[t] = math.sqrt(variance * bars_per_year)
    return out


def volatility_fractions(known: list[float], target: float, late: int) -> list[float]:
    """Fraction of the equity that an entry at each bar's open wants.

    It is of the close at which the entry's signal was known: `late` bars before the last close.
    """
    return [NAN if t < 1 + late else _over(target, known[t - 1 - late]) for t in range(len(known))]


def risk_fractions(
    bars: list[Bar], atr: list[float], risk: float, multiple: float, late: int
) -> list[float]:
    """The same: losing `multiple` of the ATR of that close costs `risk`."""
    return [
        NAN if t < 1 + late else _over(risk * bar.open, multiple * atr[t - 1 - late])
        for t, bar in enumerate(bars)
    ]


def expression_values(
    bars: list[Bar], expression: str, late: int, most: float = math.inf
) -> list[float]:
    """What one of EXPRESSIONS gives an entry at each bar's open, of the close of its signal.

    It is undefined where the expression is undefined, 0 or less, or `most` or more.
    """
    known = EXPRESSIONS[expression](bars)
    wanted = [NAN if t < 1 + late else known[t - 1 - late] for t in range(len(bars))]
    return [value if 0 < value < most else NAN for value in wanted]


def _by_range(bars: list[Bar]) -> list[float]:
    ranges = average_true_range(bars, 3)
    return [_over(0.02, x / bar.close) for x, bar in zip(ranges, bars, strict=True)]


def _by_rise(bars: list[Bar]) -> list[float]:
    rises = [bar.close / before.close - 1 for before, bar in itertools.pairwise(bars)]
    return [NAN, *(20 * x for x in rises)]


def _by_atr(bars: list[Bar]) -> list[float]:
    return [_over(x, bar.close) for x, bar in zip(average_true_range(bars, 3), bars, strict=True)]


def _of_each(value: Callable[[Bar], float]) -> Callable[[list[Bar]], list[float]]:
    return lambda bars: [value(bar) for bar in bars]


EXPRESSIONS: dict[str, Callable[[list[Bar]], list[float]]] = {
    "0.02 / (atr_3 / close)": _by_range,
    "20 * (close / shift(close, 1) - 1)": _by_rise,
    "0.3 if close > open else 0": _of_each(lambda bar: 0.3 if bar.close > bar.open else 0.0),
    "(high - low) / close": _of_each(lambda bar: (bar.high - bar.low) / bar.close),
    "1.5 if open > close else 3": _of_each(lambda bar: 1.5 if bar.open > bar.close else 3.0),
    "close - open": _of_each(lambda bar: bar.close - bar.open),
    "close / 100": _of_each(lambda bar: bar.close / 100),
    "shift(close, 5)": lambda bars: [NAN] * 5 + [bar.close for bar in bars[:-5]],
    "atr_3 / close": _by_atr,
}
"""Numbers of each bar as the rule language has them, and by plain Python."""


def _over(part: float, whole: float) -> float:
    return math.inf if whole == 0 else part / whole
