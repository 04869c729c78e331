"""How a run's daily figures change over its life."""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.simulation.metrics.daily import DAILY_STATISTICS, daily_statistics

ROLLING = ("total_return", "annual_volatility", "sharpe")
FEWEST_DAYS = 2


def rolling_statistics(equity: np.ndarray, window: int) -> dict[str, np.ndarray]:
    """The ROLLING metrics of each stretch of `window` daily returns, as the dictionary has them.

    Args:
        equity: float64 `(n_days + 1,)`, the start and each day's end.
        window: days of a stretch.

    Returns:
        For each metric float64 `(n_days - window + 1,)`, none where there are fewer days:
        `total_return` a fraction, `annual_volatility` a fraction a year, `sharpe` per year. NaN
        where undefined, as in a stretch without a move.

    Raises:
        InvalidInput: for a window of fewer than two days.
    """
    if window < FEWEST_DAYS:
        raise InvalidInput(f"a window has {FEWEST_DAYS} days at least, not {window}")
    if len(equity) <= window:
        return {name: np.empty(0) for name in ROLLING}
    stretches = np.lib.stride_tricks.sliding_window_view(equity, window + 1)
    bounds = np.array([0, window + 1])
    table = daily_statistics(stretches, stretches[0].copy(), bounds, np.arange(window + 1) * DAY_US)
    table[~np.isfinite(table)] = np.nan
    return {name: table[:, DAILY_STATISTICS.index(name)].copy() for name in ROLLING}
