"""What the best of a sweep is worth, the sweep being all that was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.bootstrap import FEWEST_DAYS, DailyEquity, bootstrap, interval
from backtest_pipeline.research.overfitting import probability_of_backtest_overfitting
from backtest_pipeline.research.trials import deflate, family_of
from backtest_pipeline.simulation.significance import sharpe_moments

DRAWS = 500
"""Enough for an interval's ends to be steady in their first two digits."""
N_BLOCKS = 16
MOST_RETURNS = 25_000_000
"""Daily returns of all combinations together above which nothing is cross-validated."""

Intervals = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Selection:
    """How far the best of many combinations can be luck.

    Attributes:
        n_trials: combinations, each counting.
        n_trials_effective: combinations of their own kind.
        psr: probability that the best one's true Sharpe ratio is above zero, as if it were alone.
        dsr: the same, deflated by `n_trials`.
        dsr_effective: the same, deflated by `n_trials_effective`.
        pbo: probability that choosing by Sharpe ratio is overfitting, by cross-validation (CSCV).
        intervals: 5th and 95th percentile of what the best one's days could have come to as well,
            by metric; empty where there are too few.
        undefined: why a number is NaN, or there are no intervals.
    """

    n_trials: int
    n_trials_effective: float
    psr: float
    dsr: float
    dsr_effective: float
    pbo: float
    intervals: Intervals
    undefined: Mapping[str, str]


def selection(returns: np.ndarray, best: int, *, risk_free: float = 0.0) -> Selection:
    """Judge the best of a sweep by the daily returns of all that were tried.

    Args:
        returns: float64 `(n_days, n_combinations)`, simple.
        best: column of the chosen one.
        risk_free: return of cash a day, a fraction, that Sharpe ratios are in excess of.
    """
    undefined: dict[str, str] = {}
    excess = returns - risk_free
    n_days, n_trials = returns.shape
    family = family_of(n_trials, returns)
    psr = dsr = dsr_effective = pbo = np.nan
    moments = sharpe_moments(excess[:, [best]]) if n_days > 1 else None
    if moments is None or np.isnan(moments.sharpe[0]):
        why = "the best combination has fewer than two daily returns, or none that vary"
        undefined |= dict.fromkeys(("psr", "dsr", "dsr_effective"), why)
    else:
        found = deflate(moments, [family])
        psr, dsr, dsr_effective = (
            float(value[0]) for value in (found.psr, found.dsr, found.dsr_effective)
        )
    why = _why_not_cross_validated(excess)
    if why:
        undefined["pbo"] = why
    else:
        pbo = probability_of_backtest_overfitting(excess[:, excess.std(axis=0) > 1e-14], N_BLOCKS)
    intervals: Intervals = {}
    try:
        intervals = bootstrap_intervals(returns[:, best], risk_free=risk_free)
    except InvalidInput as error:
        undefined["intervals"] = str(error)
    return Selection(
        n_trials, family.n_effective, psr, dsr, dsr_effective, pbo, intervals, undefined
    )


def bootstrap_intervals(
    returns: np.ndarray, *, draws: int = DRAWS, seed: int = 0, risk_free: float = 0.0
) -> Intervals:
    """5th and 95th percentile of total_return, sharpe and max_drawdown over resampled days.

    Args:
        returns: float64 `(n_days,)`, simple daily returns.
        draws, seed, risk_free: as `bootstrap` takes.

    Raises:
        InvalidInput: for too few days.
    """
    if len(returns) < FEWEST_DAYS:
        raise InvalidInput(f"{len(returns)} daily returns cannot be resampled; {FEWEST_DAYS} can")
    daily = DailyEquity(np.arange(len(returns) + 1), np.cumprod(np.append(1.0, 1.0 + returns)))
    samples = bootstrap(daily, draws, seed, risk_free=risk_free).samples
    return {name: interval(values) for name, values in samples.items()}


def _why_not_cross_validated(returns: np.ndarray) -> str | None:
    n_days = len(returns)
    if n_days < 2 * N_BLOCKS:
        return f"{n_days} daily returns are too few for {N_BLOCKS} blocks of two at least"
    if returns.size > MOST_RETURNS:
        return f"{returns.size:,} daily returns are more than {MOST_RETURNS:,}; narrow the ranges"
    if np.count_nonzero(returns.std(axis=0) > 1e-14) < 2:
        return "fewer than two combinations have returns that vary"
    return None
