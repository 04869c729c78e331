"""Stationary block bootstrap of a run's daily returns.

A resampled path consists of resampling blocks of the run's own daily returns, of random length
(geometric, so the resampled series is stationary). Blocks keep streaks and volatile weeks together.
Drawing single days would tear them apart and give intervals that are too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.research.robustness.draws import Purpose, generator, require_draws
from backtest_pipeline.simulation.metrics.metrics import equity_metrics

FEWEST_DAYS = 20
"""Daily returns needed for a bootstrap."""
BAND_PERCENTILES = (5, 25, 50, 75, 95)
STATISTICS = ("total_return", "sharpe", "max_drawdown")


@dataclass(frozen=True)
class DailyEquity:
    """Equity at the end of each UTC day, with days counted as in docs/metrics.md.

    Attributes:
        day: int64 `(n_days + 1,)`, consecutive UTC days since 1970; the first is the start.
        equity: float64 `(n_days + 1,)`; a day without a bar repeats the last equity.
    """

    day: np.ndarray
    equity: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """Simple daily returns, float64 `(n_days,)`; 0 after a total loss."""
        before, after = self.equity[:-1], self.equity[1:]
        return np.divide(after, before, out=np.ones_like(after), where=before > 0) - 1.0


def daily_equity(ts_us: np.ndarray, equity: np.ndarray) -> DailyEquity:
    """The starting equity and the equity at the end of each UTC day.

    Args:
        ts_us: int64 `(n_marks,)`, microseconds since 1970 UTC, strictly increasing.
        equity: float64 `(n_marks,)`, at each mark.
    """
    day = ts_us // DAY_US
    # If the first bar's day has more bars, its end is a separate mark, and the starting equity
    # counts as the end of the day before.
    first = day[0] - 1 if len(day) > 1 and day[1] == day[0] else day[0]
    days = np.arange(first, day[-1] + 1)
    last_bar = np.maximum(np.searchsorted(day, days, side="right") - 1, 0)
    return DailyEquity(days, np.concatenate((equity[:1], equity[last_bar[1:]])))


def optimal_block_length(returns: np.ndarray) -> float:
    """Mean resampling block length that best estimates the variance of the mean return.

    The flat-top lag window rule of Politis and White (2004), "Automatic block-length selection
    for the dependent bootstrap", corrected by Patton, Politis and White (2009), as in the authors'
    own code: the window is twice the last lag before five in a row with insignificant correlation.

    Args:
        returns: float64 `(n,)`.

    Returns:
        Mean block length in observations, from 1 to `min(3 * sqrt(n), n / 3)` rounded up.

    Raises:
        InvalidInput: for fewer than FEWEST_DAYS values.
    """
    n = len(returns)
    if n < FEWEST_DAYS:
        raise InvalidInput(
            f"{n} returns are too few to choose a block length; give at least {FEWEST_DAYS}"
        )
    deviation = returns - returns.mean()
    if not np.any(deviation):
        return 1.0
    in_a_row = max(5, int(np.log10(n)))
    lags = np.arange(int(np.ceil(np.sqrt(n))) + in_a_row + 1)
    products = np.array([deviation[k:] @ deviation[: n - k] for k in lags])
    scale = np.array(
        [np.linalg.norm(deviation[k + 1 :]) * np.linalg.norm(deviation[: n - k - 1]) for k in lags]
    )
    significant = np.abs(products) >= scale * 2 * np.sqrt(np.log10(n) / n)
    # Windows of lags end before the last lag.
    quiet = np.lib.stride_tricks.sliding_window_view(~significant[:-1], in_a_row).all(axis=1)
    first_quiet = int(quiet.argmax()) if quiet.any() else len(lags)
    window = min(2 * max(first_quiet, 1), int(lags[-1]))

    lag = lags[1 : window + 1]
    weight = np.minimum(1.0, 2 * (1 - lag / window)) * products[lag] / n
    spread = 2 * np.sum(weight * lag)
    long_run_variance = products[0] / n + 2 * np.sum(weight)
    most = np.ceil(min(3 * np.sqrt(n), n / 3))
    if long_run_variance == 0:
        return float(most)
    return float(np.clip(np.cbrt((spread / long_run_variance) ** 2 * n), 1.0, most))


@compiled
def _chain(start, begins_anew, n_source):
    at = start[0]
    for t in range(1, len(start)):
        at = start[t] if begins_anew[t] else (at + 1) % n_source
        start[t] = at


def stationary_rows(
    rng: np.random.Generator, n: int, n_source: int, block_length: float
) -> np.ndarray:
    """Draw `n` positions out of `n_source` in stationary blocks; see `resampled_rows`."""
    start = rng.integers(0, n_source, n)
    _chain(start, rng.random(n) * block_length < 1.0, n_source)
    return start


def resampled_rows(
    n: int, block_length: float, draws: int, seed: int, *, purpose: Purpose = Purpose.BOOTSTRAP
) -> np.ndarray:
    """Positions of stationary bootstrap samples of `n` observations, one sample per draw.

    Politis and Romano (1994), "The stationary bootstrap": at each observation a new block starts
    at a random position with probability `1 / block_length`; the first observation follows the
    last.

    Returns:
        int32 `(draws, n)`.
    """
    rows = np.empty((draws, n), np.int32)
    for draw in range(draws):
        rows[draw] = stationary_rows(generator(seed, purpose, draw), n, n, block_length)
    return rows


@dataclass(frozen=True)
class Bootstrap:
    """Bootstrap distribution of a run's equity and statistics.

    Attributes:
        block_length: mean length of a resampling block, days.
        bands: float64 `(5, n_days + 1)`, BAND_PERCENTILES of resampled equity at each day's end.
        samples: value of each of STATISTICS in every draw, float64 `(draws,)`.
    """

    block_length: float
    bands: np.ndarray
    samples: dict[str, np.ndarray]


def bootstrap(
    daily: DailyEquity,
    draws: int,
    seed: int,
    block_length: float | None = None,
    *,
    risk_free: float = 0.0,
) -> Bootstrap:
    """Resample the daily returns of a run.

    Args:
        daily: equity with at least FEWEST_DAYS returns.
        draws: number of resampled paths.
        seed: random seed.
        block_length: mean resampling block length in days; None for `optimal_block_length`.
        risk_free: risk-free return per day, a fraction, subtracted in Sharpe ratios.

    Raises:
        InvalidInput: for too few returns, no draws, or a block length outside 1 to the number of
            days.
    """
    require_draws(draws, seed)
    returns = daily.returns
    length = optimal_block_length(returns) if block_length is None else block_length
    if not 1.0 <= length <= len(returns):
        raise InvalidInput(
            f"block_length must be between 1 and the run's {len(returns)} days, not {length!r}"
        )
    rows = resampled_rows(len(returns), length, draws, seed)
    equity = np.empty((draws, len(daily.equity)))
    equity[:, 0] = daily.equity[0]
    np.cumprod(1.0 + returns[rows], axis=1, out=equity[:, 1:])
    equity[:, 1:] *= daily.equity[0]
    metrics = equity_metrics(
        daily.day * DAY_US,
        np.array([0, len(daily.day)]),
        equity,
        np.ones(len(daily.day)),
        risk_free=risk_free,
    )
    return Bootstrap(
        block_length=length,
        bands=np.percentile(equity, BAND_PERCENTILES, axis=0),
        samples={name: metrics[name] for name in STATISTICS},
    )


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The 5th and 95th percentile of the samples, NaN left out; NaN if all are."""
    defined = samples[~np.isnan(samples)]
    if len(defined) == 0:
        return np.nan, np.nan
    low, high = np.percentile(defined, (5, 95))
    return float(low), float(high)


def p_value_above_zero(estimate: float, samples: np.ndarray) -> float:
    """One-sided bootstrap p-value: probability of such an estimate if the true value were zero.

    The samples minus the estimate are taken as its error: `(1 + #{sample - estimate >= estimate}) /
    (1 + n)`, Hall and Wilson (1991), "Two guidelines for bootstrap hypothesis testing". NaN if the
    estimate or all samples are undefined.
    """
    defined = samples[~np.isnan(samples)]
    if not np.isfinite(estimate) or len(defined) == 0:
        return np.nan
    return p_value(2 * estimate, defined)


def p_value(value: float, samples: np.ndarray) -> float:
    """`(1 + #{sample >= value}) / (1 + n)`; never 0, since the value itself counts as a sample.

    Davison and Hinkley (1997), "Bootstrap Methods and their Application", section 4.2.
    """
    as_good = samples >= value - 1e-12 * abs(value)  # equal runs can differ by rounding
    return float((1 + np.count_nonzero(as_good)) / (1 + len(samples)))
