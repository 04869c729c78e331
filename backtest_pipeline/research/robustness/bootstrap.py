"""Stationary block bootstrap of daily returns: the range that the same days could have given.

Blocks of days of random length (geometric, so that the resampled series is stationary) are put
together from the run's own daily returns. Streaks and volatile weeks stay together, which single
days drawn at random would tear apart: the intervals of the latter are too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.research.robustness.draws import Purpose, generator, require_draws
from backtest_pipeline.simulation.metrics.metrics import equity_metrics

FEWEST_DAYS = 20
"""Daily returns below which nothing is resampled."""
BAND_PERCENTILES = (5, 25, 50, 75, 95)
STATISTICS = ("total_return", "sharpe", "max_drawdown")


@dataclass(frozen=True)
class DailyEquity:
    """Equity at day ends, as the metric dictionary counts days.

    Attributes:
        day: int64 `(n + 1,)`, UTC day numbers without a hole; the first is that of the start.
        equity: float64 `(n + 1,)`; a day without a bar repeats the last equity.
    """

    day: np.ndarray
    equity: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """float64 `(n,)`; 0 after a total loss."""
        before, after = self.equity[:-1], self.equity[1:]
        return np.divide(after, before, out=np.ones_like(after), where=before > 0) - 1.0


def daily_equity(ts_us: np.ndarray, equity: np.ndarray) -> DailyEquity:
    """The starting equity and that at the end of each UTC day.

    Args:
        ts_us: int64 `(n_bars,)`, close stamps in microseconds UTC, strictly increasing.
        equity: float64 `(n_bars,)`.
    """
    day = ts_us // DAY_US
    # Where the first bar's day goes on, its end is a mark of its own, and the start counts as the
    # end of the day before.
    first = day[0] - 1 if len(day) > 1 and day[1] == day[0] else day[0]
    days = np.arange(first, day[-1] + 1)
    last_bar = np.maximum(np.searchsorted(day, days, side="right") - 1, 0)
    return DailyEquity(days, np.concatenate((equity[:1], equity[last_bar[1:]])))


def optimal_block_length(returns: np.ndarray) -> float:
    """Mean block length with which the bootstrap estimates the variance of a mean best.

    The flat-top lag window rule of Politis and White (2004), "Automatic block-length selection
    for the dependent bootstrap", with the correction of Patton, Politis and White (2009), as the
    authors' own program applies it: the window is twice the last lag before five in a row whose
    correlation is insignificant.

    Args:
        returns: float64 `(n,)`.

    Returns:
        Observations, at least 1 and at most `min(3 * sqrt(n), n / 3)`, rounded up.

    Raises:
        InvalidInput: for fewer than FEWEST_DAYS values.
    """
    n = len(returns)
    if n < FEWEST_DAYS:
        raise InvalidInput(f"{n} returns have no block length; give at least {FEWEST_DAYS}")
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
    # The lags before the last: the window of lags that starts at `first` ends before it.
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


@njit(cache=True, nogil=True)
def _chain(start, begins_anew, n_source):
    at = start[0]
    for t in range(1, len(start)):
        at = start[t] if begins_anew[t] else (at + 1) % n_source
        start[t] = at


def stationary_rows(
    rng: np.random.Generator, n: int, n_source: int, block_length: float
) -> np.ndarray:
    """Positions of `n` observations in blocks out of `n_source`; see `resampled_rows`."""
    start = rng.integers(0, n_source, n)
    _chain(start, rng.random(n) * block_length < 1.0, n_source)
    return start


def resampled_rows(
    n: int, block_length: float, draws: int, seed: int, *, purpose: Purpose = Purpose.BOOTSTRAP
) -> np.ndarray:
    """Positions of one stationary bootstrap sample of `n` observations per draw.

    Politis and Romano (1994), "The stationary bootstrap": at each observation a new block begins
    with probability `1 / block_length`, at a random place; the last observation is followed by
    the first.

    Returns:
        int32 `(draws, n)`.
    """
    rows = np.empty((draws, n), np.int32)
    for draw in range(draws):
        rows[draw] = stationary_rows(generator(seed, purpose, draw), n, n, block_length)
    return rows


@dataclass(frozen=True)
class Bootstrap:
    """The range of results that the same days could have given.

    Attributes:
        block_length: mean length of a block, days.
        bands: float64 `(5, n + 1)`, BAND_PERCENTILES of the equity at each day's end.
        samples: for each of STATISTICS its value in every draw, float64 `(draws,)`.
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
        daily: at least FEWEST_DAYS returns.
        draws: paths.
        seed: of the random numbers.
        block_length: mean length of a block in days; `optimal_block_length` where not given.
        risk_free: return of cash a day, a fraction, that Sharpe ratios are in excess of.

    Raises:
        InvalidInput: for too few returns, no draws, or a block shorter than a day.
    """
    require_draws(draws, seed)
    returns = daily.returns
    length = optimal_block_length(returns) if block_length is None else block_length
    if not 1.0 <= length <= len(returns):
        raise InvalidInput(
            f"block_length must lie between 1 and the {len(returns)} days there are, not {length!r}"
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
    """The 5th and 95th percentile; NaN where no sample is defined."""
    known = samples[~np.isnan(samples)]
    if len(known) == 0:
        return np.nan, np.nan
    low, high = np.percentile(known, (5, 95))
    return float(low), float(high)


def p_value_above_zero(estimate: float, samples: np.ndarray) -> float:
    """Probability of an estimate at least as high if the true value were zero.

    The samples less the estimate stand for the estimate's error, as in Hall and Wilson (1991),
    "Two guidelines for bootstrap hypothesis testing": `(1 + #{sample - estimate >= estimate}) /
    (1 + n)`. NaN where the estimate is.
    """
    known = samples[~np.isnan(samples)]
    if not np.isfinite(estimate) or len(known) == 0:
        return np.nan
    return p_value(2 * estimate, known)


def p_value(value: float, samples: np.ndarray) -> float:
    """`(1 + #{sample >= value}) / (1 + n)`: never 0, since the value itself is one possibility.

    Davison and Hinkley (1997), "Bootstrap Methods and their Application", section 4.2.
    """
    as_good = samples >= value - 1e-12 * abs(value)  # equal runs differ by rounding
    return float((1 + np.count_nonzero(as_good)) / (1 + len(samples)))
