"""Indicators and signals one bar at a time, in plain Python; no code is shared with the product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from backtest_pipeline.trading.conditions import Conditions

NAN = float("nan")


def ema(closes: Sequence[float], n: int) -> list[float]:
    """Exponential average, seeded with the simple average of the first n values."""
    out = [NAN] * len(closes)
    for t in range(n - 1, len(closes)):
        if t == n - 1:
            out[t] = sum(closes[:n]) / n
        else:
            out[t] = out[t - 1] + 2 / (n + 1) * (closes[t] - out[t - 1])
    return out


def wilder(values: Sequence[float], n: int) -> list[float]:
    """Wilder's average: the plain mean of the first n, then (previous * (n - 1) + value) / n."""
    out = [NAN] * len(values)
    for t in range(n - 1, len(values)):
        if t == n - 1:
            out[t] = sum(values[:n]) / n
        else:
            out[t] = (out[t - 1] * (n - 1) + values[t]) / n
    return out


def rsi(closes: Sequence[float], n: int) -> list[float]:
    """Wilder's relative strength index; the first value stands at bar n."""
    changes = [b - a for a, b in pairwise(closes)]
    gains = wilder([max(c, 0.0) for c in changes], n)
    losses = wilder([max(-c, 0.0) for c in changes], n)
    strength = [
        100.0 if loss == 0 and gain > 0 else 50.0 if loss == 0 else 100 - 100 / (1 + gain / loss)
        for gain, loss in zip(gains, losses, strict=True)
    ]
    return [NAN, *strength][: len(closes)]


def atr(highs: Sequence[float], lows: Sequence[float], closes: Sequence[float], n: int) -> list:
    """Wilder's average true range; the first true range is high less low."""
    ranges = [
        high - low if t == 0 else max(high, closes[t - 1]) - min(low, closes[t - 1])
        for t, (high, low) in enumerate(zip(highs, lows, strict=True))
    ]
    return wilder(ranges, n)


@dataclass
class Log:
    """Bars on which each condition holds."""

    long_entry: list[int] = field(default_factory=list)
    long_exit: list[int] = field(default_factory=list)
    short_entry: list[int] = field(default_factory=list)
    short_exit: list[int] = field(default_factory=list)


def log_of(conditions: Conditions) -> Log:
    """The product's conditions in the same form."""
    return Log(
        *(
            [t for t, happened in enumerate(flags.tolist()) if happened]
            for flags in (
                conditions.long_entry,
                conditions.long_exit,
                conditions.short_entry,
                conditions.short_exit,
            )
        )
    )


def one_side(
    bars: int, enters: Callable[[int], bool], leaves: Callable[[int], bool]
) -> tuple[list[int], list[int]]:
    """Bars on which a side would be entered, and left; an entry compares with the bar before."""
    return [t for t in range(1, bars) if enters(t)], [t for t in range(bars) if leaves(t)]


def crossover(
    fast: Sequence[float],
    slow: Sequence[float],
    long_filter: Callable[[int], bool] = lambda _: True,
    short_filter: Callable[[int], bool] = lambda _: True,
) -> Log:
    """The fast average crosses the slow one."""

    def up(t: int) -> bool:
        return t > 0 and fast[t - 1] <= slow[t - 1] and fast[t] > slow[t]

    def down(t: int) -> bool:
        return t > 0 and fast[t - 1] >= slow[t - 1] and fast[t] < slow[t]

    n = len(fast)
    long = one_side(n, lambda t: up(t) and long_filter(t), down)
    short = one_side(n, lambda t: down(t) and short_filter(t), up)
    return Log(*long, *short)


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest ranks; NaN where a value is missing."""
    if any(v != v for v in values):
        return NAN
    ordered = sorted(values)
    position = share / 100 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def reversion(index: Sequence[float], lower: float, upper: float, window: int | None = None) -> Log:
    """The index comes back from an extreme, fixed or a percentile of the last `window` bars."""

    def bound(t: int, share: float) -> float:
        if window is None:
            return share
        return percentile(index[t - window + 1 : t + 1], share) if t >= window - 1 else NAN

    low = [bound(t, lower) for t in range(len(index))]
    high = [bound(t, upper) for t in range(len(index))]
    n = len(index)
    long = one_side(
        n,
        lambda t: index[t - 1] <= low[t - 1] and index[t] > low[t],
        lambda t: index[t] >= high[t],
    )
    short = one_side(
        n,
        lambda t: index[t - 1] >= high[t - 1] and index[t] < high[t],
        lambda t: index[t] <= low[t],
    )
    return Log(*long, *short)


def macd_and_signal(
    closes: Sequence[float], fast: int, slow: int, signal: int
) -> tuple[list[float], list[float]]:
    """Difference of two averages, and its own average, which begins where the difference does."""
    pairs = zip(ema(closes, fast), ema(closes, slow), strict=True)
    macd = [quick - steady for quick, steady in pairs]
    return macd, [NAN] * (slow - 1) + ema(macd[slow - 1 :], signal)


def band_reversion(closes: Sequence[float], period: int, width: float) -> Log:
    """The close comes back into its Bollinger bands, and leaves at their middle."""

    def bands(t: int) -> tuple[float, float, float]:
        if t < period - 1:
            return NAN, NAN, NAN
        window = closes[t - period + 1 : t + 1]
        middle = sum(window) / period
        spread = width * (sum((c - middle) ** 2 for c in window) / period) ** 0.5
        return middle - spread, middle, middle + spread

    drawn = [bands(t) for t in range(len(closes))]
    long = one_side(
        len(closes),
        lambda t: closes[t - 1] <= drawn[t - 1][0] and closes[t] > drawn[t][0],
        lambda t: closes[t] >= drawn[t][1],
    )
    short = one_side(
        len(closes),
        lambda t: closes[t - 1] >= drawn[t - 1][2] and closes[t] < drawn[t][2],
        lambda t: closes[t] <= drawn[t][1],
    )
    return Log(*long, *short)


def breakout(
    highs: Sequence[float], lows: Sequence[float], closes: Sequence[float], lookback: int
) -> Log:
    """The close leaves the channel of the `lookback` bars before it."""
    later = range(lookback, len(closes))
    above = [t for t in later if closes[t] > max(highs[t - lookback : t])]
    below = [t for t in later if closes[t] < min(lows[t - lookback : t])]
    return Log(above, below, below, above)
