"""How a run's daily figures change over its life."""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.simulation.metrics.daily import DAILY_STATISTICS, daily_statistics

ROLLING = ("total_return", "annual_volatility", "sharpe")
FEWEST_DAYS = 2


def rolling_statistics(
    equity: np.ndarray,
    window: int,
    benchmark: np.ndarray | None = None,
    at: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The ROLLING metrics of each stretch of `window` daily returns, as the dictionary has them.

    Args:
        equity: float64 `(n_days + 1,)`, the start and each day's end.
        window: days of a stretch.
        benchmark: equity of a benchmark on the same days; with one there is `beta` as well.
        at: first days of the stretches, int64; all where None.

    Returns:
        For each metric float64 `(n_days - window + 1,)`, or one value for each of `at`; none where
        there are fewer days: `total_return` a fraction, `annual_volatility` a fraction a year,
        `sharpe` per year, `beta`. NaN where undefined, as in a stretch without a move.

    Raises:
        InvalidInput: for a window of fewer than two days.
    """
    if window < FEWEST_DAYS:
        raise InvalidInput(f"a window has {FEWEST_DAYS} days at least, not {window}")
    names = ROLLING if benchmark is None else (*ROLLING, "beta")
    if len(equity) <= window:
        return {name: np.empty(0) for name in names}
    stretches = _stretches(equity, window, at)
    alive = stretches[:, 0] > 0  # after a total loss there is nothing left to earn on
    table = np.full((len(stretches), len(DAILY_STATISTICS)), np.nan)
    if alive.any():
        held = None if benchmark is None else _stretches(benchmark, window, at)[alive]
        table[alive] = _statistics(stretches[alive], held)
    table[~np.isfinite(table)] = np.nan
    return {name: table[:, DAILY_STATISTICS.index(name)].copy() for name in names}


def _statistics(stretches: np.ndarray, held: np.ndarray | None) -> np.ndarray:
    """DAILY_STATISTICS of each stretch, beside its part of the benchmark if there is one."""
    n, length = stretches.shape
    ends = np.arange(length) * DAY_US
    if held is None:
        return daily_statistics(stretches, stretches[0].copy(), np.array([0, length]), ends)
    # Each stretch is an asset of its own.
    bounds, ts = np.arange(n + 1) * length, np.tile(ends, n)
    return daily_statistics(stretches.reshape(1, -1), held.reshape(-1), bounds, ts)


def _stretches(daily: np.ndarray, window: int, at: np.ndarray | None) -> np.ndarray:
    stretches = np.lib.stride_tricks.sliding_window_view(daily, window + 1)
    return stretches if at is None else stretches[at]
