"""Studentised bootstrap interval of the Sharpe ratio, Ledoit and Wolf (2008).

"Robust performance hypothesis testing with the Sharpe ratio". The error of each resampled ratio is
divided by that history's own standard error before the quantile is taken, and blocks are as long as
positions are held.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.research.robustness.bootstrap import optimal_block_length
from backtest_pipeline.research.robustness.draws import Purpose, generator, require_draws

DAYS_PER_YEAR = 365
LEVEL = 0.9
"""Nominal coverage."""
COVERAGE = "88 to 91 %"
"""Measured coverage, over the kinds of returns and lengths of `bench.interval_coverage`."""


def sharpe_interval(
    returns: np.ndarray,
    draws: int,
    seed: int,
    *,
    holding_days: float = 1.0,
    risk_free: float = 0.0,
) -> tuple[float, float]:
    """Interval of the yearly Sharpe ratio, symmetric about the estimate.

    Args:
        returns: float64 `(n_days,)`, simple daily returns, FEWEST_DAYS of them at least.
        draws: number of resampled histories.
        seed: random seed.
        holding_days: mean time that a position is held, days; blocks are at least as long.
        risk_free: risk-free return per day, a fraction.

    Returns:
        Lower and upper end; NaN where returns are constant, in the run or in every history.

    Raises:
        InvalidInput: for too few returns, or for a number of draws or a seed out of range.
    """
    require_draws(draws, seed)
    length = block_days(returns, holding_days)
    excess = returns - risk_free
    if not np.ptp(excess):
        return np.nan, np.nan
    n = len(excess)
    deviation, scale = excess - excess.mean(), excess.std()
    sharpe = excess.mean() / scale
    error = _hac_error(deviation / scale, sharpe, 2 * length)
    samples, errors = _resampled(deviation, excess.mean(), length, draws, seed)
    known = np.isfinite(samples) & (errors > 0)
    if not known.any():
        return np.nan, np.nan
    studentised = np.abs(samples[known] - sharpe) / errors[known]
    reach = float(np.quantile(studentised, LEVEL)) * error
    # The Sharpe ratio of the metrics divides by a standard deviation with ddof 1.
    to_year = np.sqrt(DAYS_PER_YEAR * (n - 1) / n)
    return float((sharpe - reach) * to_year), float((sharpe + reach) * to_year)


def block_days(returns: np.ndarray, holding_days: float) -> int:
    """Whole days of a block: of Politis and White, or the mean holding time if that is longer.

    At most a third of the days, and 3 roots of their number, as for the stationary bootstrap.
    """
    n = len(returns)
    most = int(np.ceil(min(3 * np.sqrt(n), n / 3)))
    return min(int(np.ceil(max(optimal_block_length(returns), holding_days))), most)


def influence(standardised: np.ndarray, sharpe: float) -> np.ndarray:
    """What each day adds to the error of a Sharpe ratio, from returns as `(r - mean) / std`."""
    return standardised - sharpe / 2 * (standardised**2 - 1)


def _hac_error(standardised: np.ndarray, sharpe: float, lags: int) -> float:
    """Standard error of the Sharpe ratio that allows for `lags` days of dependence.

    Weights fall linearly to zero (Newey and West 1987), so that the variance is never negative.
    """
    values = influence(standardised, sharpe)
    n = len(values)
    variance = values @ values
    for lag in range(1, min(lags, n)):
        variance += 2 * (1 - lag / lags) * (values[lag:] @ values[:-lag])
    return float(np.sqrt(variance) / n)


def _resampled(
    deviation: np.ndarray, mean: float, length: int, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Daily Sharpe ratios of histories of circular blocks, and their standard errors.

    A Sharpe ratio and its error follow from the sums of returns and of squares in each block, so no
    history is ever laid out.
    """
    n = len(deviation)
    n_blocks = n // length
    around = np.concatenate((deviation, deviation[: length - 1]))

    def sums(values: np.ndarray) -> np.ndarray:
        total = np.concatenate(([0.0], np.cumsum(values)))
        return total[length:] - total[:-length]

    starts = np.stack(
        [generator(seed, Purpose.SHARPE, draw).integers(0, n, n_blocks) for draw in range(draws)]
    )
    first, second = sums(around)[starts], sums(around**2)[starts]
    days = n_blocks * length
    shift = first.sum(axis=1) / days
    variance = second.sum(axis=1) / days - shift**2
    # A history of one single return, over and over, has a variance of rounding only.
    variance = np.where(variance > 1e-12 * np.mean(deviation**2), variance, np.nan)
    scale = np.sqrt(variance)
    sharpe = (mean + shift) / scale
    shift, scale, ratio = shift[:, None], scale[:, None], sharpe[:, None]
    squares = (second - 2 * shift * first + length * shift**2) / scale**2
    of_block = (first - length * shift) / scale - ratio / 2 * (squares - length)
    return sharpe, np.sqrt((of_block**2).sum(axis=1)) / days
