"""Statistics of daily equity, for all columns in one compiled pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.market.timeframes import DAY_US

DAILY_STATISTICS = (
    "total_return",
    "cagr",
    "annual_volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "max_drawdown_duration_days",
    "omega",
    "value_at_risk_95",
    "expected_shortfall_95",
    "skew",
    "kurtosis",
    "benchmark_return",
    "alpha",
    "beta",
    "information_ratio",
    "tracking_error",
    "mean_equity",
    "n_days",
)
_YEAR = 365.0
FEWEST_DAYS_A_YEAR = 90
"""Days of equity below which a growth is not made one of a year."""


_TAIL = slice(8, 12)  # value at risk, shortfall, skew, kurtosis


@compiled
def _first_day(days):
    # Equity starts at the first bar's close, before which nothing can be held. If that day has
    # more bars, its end is a separate mark, and the start counts as the end of the day before.
    return days[0] - 1 if len(days) > 1 and days[1] == days[0] else days[0]


@compiled
def _to_days(equity, days, daily):
    """Write the starting equity and the equity at each day's end into `daily`; returns the count.

    A day without a bar repeats the last equity.
    """
    first = _first_day(days)
    daily[0] = equity[0]
    last = 0
    for t in range(len(equity)):
        day = days[t] - first
        for missing in range(last + 1, day):
            daily[missing] = daily[last]
        daily[day] = equity[t]
        last = day
    return last + 1


@compiled
def _returns(daily, n, out):
    for i in range(1, n):
        # After a total loss there is nothing left to earn on.
        out[i - 1] = daily[i] / daily[i - 1] - 1.0 if daily[i - 1] > 0.0 else 0.0
    return max(n - 1, 0)


@compiled
def _drawdown(equity, ts):
    """Of every mark; the duration in days."""
    peak, peak_at, before, deepest, longest = equity[0], ts[0], ts[0], 0.0, 0
    for i in range(len(equity)):
        if equity[i] < peak:
            if equity[i] <= peak * (1.0 + deepest) * (1.0 + 1e-15):  # a division is dear
                deepest = min(deepest, equity[i] / peak - 1.0)
            longest = max(longest, ts[i] - peak_at)
        else:
            if before > peak_at:  # recovered to the peak
                longest = max(longest, ts[i] - peak_at)
            peak, peak_at = equity[i], ts[i]
        before = ts[i]
    return deepest, longest / DAY_US


@compiled
def _varies(sum_of_squares, n):
    # Constant returns differ by rounding only, which is that of the growth factor 1 + r; their
    # variance must not be divided by.
    return sum_of_squares / n > 1e-14**2


@compiled
def _lowest(r, n, count, mean, deviation):
    """The `count` lowest returns, the highest of them last, the others in no order."""
    # Partitioning all returns would dominate the time; few of them are far below the mean.
    far = np.empty(n)
    for distance in (1.3, 0.7, 0.1):
        n_far, cut = 0, mean - distance * deviation
        for i in range(n):
            far[n_far] = r[i]
            n_far += r[i] < cut
        if n_far >= count:
            return np.partition(far[:n_far], count - 1)[:count]
    return np.partition(r[:n], count - 1)[:count]


@compiled
def _shape_of_returns(r, n, risk_free, stats):
    mean = 0.0
    for i in range(n):
        mean += r[i]
    mean /= n
    m2 = m3 = m4 = downside = gains = losses = 0.0
    for i in range(n):
        d = r[i] - mean
        m2 += d * d
        m3 += d * d * d
        m4 += d * d * d * d
        # Branch-free: the sign of a return is unpredictable for the processor.
        excess = r[i] - risk_free
        short = min(excess, 0.0)
        downside += short * short
        losses -= short
        gains += max(excess, 0.0)
    excess = mean - risk_free
    if _varies(m2, n):
        deviation = np.sqrt(m2 / (n - 1))
        stats[2] = deviation * np.sqrt(_YEAR)
        stats[3] = excess / deviation * np.sqrt(_YEAR)
        stats[10] = (m3 / n) / (m2 / n) ** 1.5
        stats[11] = (m4 / n) / (m2 / n) ** 2
        position = 0.05 * (n - 1)
        k = int(position)
        lowest = _lowest(r, n, k + 2, mean, deviation)
        at, tail = lowest[0], 0.0
        for i in range(k + 1):
            at = max(at, lowest[i])
            tail += lowest[i]
        stats[8] = at + (lowest[k + 1] - at) * (position - k)
        stats[9] = tail / (k + 1)
    if downside > 0.0:
        stats[4] = excess / np.sqrt(downside / n) * np.sqrt(_YEAR)
        stats[7] = gains / losses


@compiled
def _against_benchmark(r, b, n, risk_free, stats):
    mean_r = mean_b = mean_d = 0.0
    for i in range(n):
        mean_r += r[i]
        mean_b += b[i]
        mean_d += r[i] - b[i]
    mean_r /= n
    mean_b /= n
    mean_d /= n
    covariance = variance = variance_d = 0.0
    for i in range(n):
        covariance += (r[i] - mean_r) * (b[i] - mean_b)
        variance += (b[i] - mean_b) ** 2
        variance_d += (r[i] - b[i] - mean_d) ** 2
    if _varies(variance, n):
        beta = covariance / variance
        excess = 0.0
        for i in range(n):
            excess += r[i] - risk_free - beta * (b[i] - risk_free)
        if n >= FEWEST_DAYS_A_YEAR:
            stats[13] = (1.0 + excess / n) ** _YEAR - 1.0
        stats[14] = beta
    deviation = np.sqrt(variance_d / (n - 1))
    stats[16] = deviation * np.sqrt(_YEAR)
    if _varies(variance_d, n):
        stats[15] = mean_d / deviation * np.sqrt(_YEAR)


@compiled
def _tails_of_bars(equity, r, risk_free, of_bars, stats):
    of_bars[:] = np.nan
    n = _returns(equity, len(equity), r)
    if n > 1:
        _shape_of_returns(r, n, risk_free, of_bars)
    stats[_TAIL] = of_bars[_TAIL]


@compiled
def _all_columns(equity, benchmark, offsets, ts, days, at_bars, risk_free, out):
    n_assets = len(offsets) - 1
    longest = 0
    for a in range(n_assets):
        if offsets[a + 1] > offsets[a]:
            asset_days = days[offsets[a] : offsets[a + 1]]
            longest = max(longest, asset_days[-1] - _first_day(asset_days) + 1)
    daily, r, b = np.empty(longest), np.empty(longest), np.empty(longest)
    of_bars = np.empty(len(DAILY_STATISTICS))
    for a in range(n_assets):
        first, end = offsets[a], offsets[a + 1]
        if first == end:
            continue
        n = _to_days(benchmark[first:end], days[first:end], daily)
        benchmark_return = daily[n - 1] / daily[0] - 1.0
        _returns(daily, n, b)
        for run in range(equity.shape[0]):
            stats = out[run * n_assets + a]
            _to_days(equity[run, first:end], days[first:end], daily)
            n_returns = _returns(daily, n, r)
            growth = daily[n - 1] / daily[0]
            stats[0] = growth - 1.0
            if n_returns > 0:
                stats[18] = n_returns
            if n_returns >= FEWEST_DAYS_A_YEAR:
                stats[1] = growth ** (_YEAR / n_returns) - 1.0
            stats[5], stats[6] = _drawdown(equity[run, first:end], ts[first:end])
            stats[12] = benchmark_return
            stats[17] = daily[:n].mean()
            if n_returns > 1:
                _shape_of_returns(r, n_returns, risk_free, stats)
                _against_benchmark(r, b, n_returns, risk_free, stats)
            if at_bars[a]:
                _tails_of_bars(equity[run, first:end], r, risk_free, of_bars, stats)


def daily_return_counts(offsets: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Number of daily returns of each asset, int64 `(n_assets,)`.

    Args:
        offsets: int64 `(n_assets + 1,)`; no asset may be empty.
        days: int64 `(n_rows,)`, UTC day number of each bar's close.
    """
    counts = [days[end - 1] - _first_day(days[first:end]) for first, end in pairwise(offsets)]
    return np.array(counts, np.int64)


def daily_returns(equity: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Simple daily returns of runs on one asset, float64 `(n_returns, n_runs)`.

    Args:
        equity: float64 `(n_runs, n_rows)`.
        days: int64 `(n_rows,)`, UTC day number of each bar's close.
    """
    ends = np.arange(_first_day(days) + 1, days[-1] + 1)
    last_bar = np.searchsorted(days, ends, side="right") - 1
    marks = equity[:, np.concatenate(([0], last_bar))].T
    before, after = marks[:-1], marks[1:]
    # After a total loss there is nothing left to earn on.
    return np.divide(after, before, out=np.ones_like(after), where=before > 0) - 1.0


def sampled_at_bars(offsets: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """Whether the marks of an asset lie more than a day apart, all of them, bool `(n_assets,)`.

    Days between them repeat the mark before: their returns are 0, and no tail can be read off them.
    """
    steps = np.diff(ts // DAY_US)
    return np.array(
        [
            last - first > 1 and steps[first : last - 1].min() > 1
            for first, last in pairwise(offsets)
        ],
        np.bool_,
    )


def daily_statistics(
    equity: np.ndarray,
    benchmark: np.ndarray,
    offsets: np.ndarray,
    ts: np.ndarray,
    risk_free: float = 0.0,
    *,
    at_bars: np.ndarray | None = None,
) -> np.ndarray:
    """DAILY_STATISTICS of every column; docs/metrics.md has the formulas.

    Args:
        equity: float64 `(n_runs, n_rows)`.
        benchmark: float64 `(n_rows,)`, equity of the benchmark of each asset.
        offsets: int64 `(n_assets + 1,)`.
        ts: int64 `(n_rows,)`, close of each bar, microseconds since 1970 UTC.
        risk_free: risk-free return per day, a fraction.
        at_bars: bool `(n_assets,)`, whether tails are of returns from bar to bar; decided by
            `sampled_at_bars` if not given.

    Returns:
        float64 `(n_runs * n_assets, len(DAILY_STATISTICS))`, NaN where undefined.
    """
    n_columns = equity.shape[0] * (len(offsets) - 1)
    out = np.full((n_columns, len(DAILY_STATISTICS)), np.nan)
    if at_bars is None:
        at_bars = sampled_at_bars(offsets, ts)
    days = ts // DAY_US
    # Read-only arrays would be compiled for once more.
    equity, ts = (np.require(array, requirements=["C", "W"]) for array in (equity, ts))
    _all_columns(equity, benchmark, offsets, ts, days, at_bars, risk_free, out)
    return out


def daily_shapes(
    equity: np.ndarray, offsets: np.ndarray, ts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Skew and kurtosis of daily returns, float64 `(n_columns,)`, also where tails are of bars.

    With the daily Sharpe ratio and the count of days they say how sure that ratio is: repeated
    marks shrink it, and lengthen the tails, by as much.
    """
    never = np.zeros(len(offsets) - 1, np.bool_)
    table = daily_statistics(equity, np.ones(len(ts)), offsets, ts, at_bars=never)
    return table[:, 10].copy(), table[:, 11].copy()
