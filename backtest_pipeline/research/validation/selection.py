"""What the best of a sweep is worth, the sweep being all that was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.ranking.trials import MOST_CLUSTERED, deflate, family_of
from backtest_pipeline.research.robustness.bootstrap import (
    FEWEST_DAYS,
    DailyEquity,
    bootstrap,
    interval,
)
from backtest_pipeline.research.robustness.sharpe_interval import sharpe_interval
from backtest_pipeline.research.validation.overfitting import (
    BlockSums,
    block_sums,
    cross_validate_blocks,
)
from backtest_pipeline.simulation.metrics.significance import sharpe_moments

DRAWS = 500
"""Enough for an interval's ends to be steady in their first two digits."""
N_BLOCKS = 16
_ROUNDING = 1e-14  # returns that differ by this alone do not vary

Intervals = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Selection:
    """How far the best of many combinations can be luck.

    Attributes:
        n_trials: combinations, each counting.
        n_trials_effective: effective number of independent combinations among them.
        psr: probability that the best one's true Sharpe ratio is above zero, as if it were alone.
        dsr: the same, deflated by `n_trials`.
        dsr_effective: the same, deflated by `n_trials_effective`.
        pbo: probability that choosing by Sharpe ratio is overfitting, by cross-validation (CSCV).
        intervals: bootstrap intervals of the best one, nominally 90 %,
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


@dataclass(frozen=True)
class Tried:
    """What is read of the daily returns of a sweep's combinations, or of some of them.

    It takes 16 numbers of each combination, where the returns would take thousands.

    Attributes:
        n_days: returns of each.
        sampled: float64 `(n_days, n_sampled)`, those of combinations that `clustered` drew.
        best: float64 `(n_days,)`, those of the best one.
        sums: of the returns, less that of cash, of those that vary; None for too few days.
    """

    n_days: int
    sampled: np.ndarray
    best: np.ndarray
    sums: BlockSums | None

    @staticmethod
    def of(
        returns: np.ndarray, sampled: Sequence[int] | np.ndarray, best: int, risk_free: float
    ) -> Tried:
        """The returns float64 `(n_days, n_combinations)` of some, simple, summed up.

        Args:
            returns: of each in a column.
            sampled: columns.
            best: column of the one that may be the best of all.
            risk_free: return of cash a day, a fraction.
        """
        excess = returns - risk_free
        varying = excess[:, excess.std(axis=0) > _ROUNDING] if len(returns) else excess[:, :0]
        sums = block_sums(varying, N_BLOCKS) if len(returns) >= 2 * N_BLOCKS else None
        # A view would keep all of the returns.
        return Tried(len(returns), returns[:, sampled], returns[:, best].copy(), sums)

    @staticmethod
    def join(parts: Sequence[Tried], best: int, drawn: np.ndarray) -> Tried:
        """A whole sweep.

        Args:
            parts: in the order of the combinations.
            best: the part that has the best one.
            drawn: what `clustered` drew, whose order `sampled` gets.
        """
        sums = [part.sums for part in parts if part.sums is not None]
        sampled = np.concatenate([part.sampled for part in parts], axis=1)
        return Tried(
            parts[0].n_days,
            sampled[:, np.argsort(np.argsort(drawn))],
            parts[best].best,
            BlockSums.join(sums) if sums else None,
        )


def clustered(n_trials: int) -> np.ndarray:
    """Positions of the combinations of a sweep that are clustered: all, or a random sample."""
    if n_trials <= MOST_CLUSTERED:
        return np.arange(n_trials)
    return np.random.default_rng(0).choice(n_trials, MOST_CLUSTERED, replace=False)


def selection(tried: Tried, n_trials: int, *, risk_free: float = 0.0) -> Selection:
    """Judge the best of a sweep by the daily returns of all that were tried.

    Args:
        tried: all combinations.
        n_trials: how many.
        risk_free: return of cash a day, a fraction, that Sharpe ratios are in excess of.
    """
    undefined: dict[str, str] = {}
    family = family_of(n_trials, tried.sampled)
    psr = dsr = dsr_effective = pbo = np.nan
    moments = sharpe_moments(tried.best[:, None] - risk_free) if tried.n_days > 1 else None
    if moments is None or np.isnan(moments.sharpe[0]):
        why = "the best combination has fewer than two daily returns, or none that vary"
        undefined |= dict.fromkeys(("psr", "dsr", "dsr_effective"), why)
    else:
        found = deflate(moments, [family])
        psr, dsr, dsr_effective = (
            float(value[0]) for value in (found.psr, found.dsr, found.dsr_effective)
        )
    if tried.sums is None:
        undefined["pbo"] = (
            f"{tried.n_days} daily returns are too few for {N_BLOCKS} blocks of two at least"
        )
    elif tried.sums.totals.shape[1] < 2:
        undefined["pbo"] = "fewer than two combinations have returns that vary"
    else:
        pbo = cross_validate_blocks(tried.sums).probability_of_overfitting
    intervals: Intervals = {}
    try:
        intervals = bootstrap_intervals(tried.best, risk_free=risk_free)
    except InvalidInput as error:
        undefined["intervals"] = str(error)
    return Selection(
        n_trials, family.n_effective, psr, dsr, dsr_effective, pbo, intervals, undefined
    )


def bootstrap_intervals(
    returns: np.ndarray,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    holding_days: float = 1.0,
    risk_free: float = 0.0,
) -> Intervals:
    """Intervals of total_return, sharpe and max_drawdown, nominally 90 %, over resampled days.

    Studentised for the Sharpe ratio; the 5th and 95th percentile for the others.

    Args:
        returns: float64 `(n_days,)`, simple daily returns.
        draws, seed, risk_free: as `bootstrap` takes.
        holding_days: as `sharpe_interval` takes.

    Raises:
        InvalidInput: for too few days.
    """
    if len(returns) < FEWEST_DAYS:
        raise InvalidInput(f"{len(returns)} daily returns cannot be resampled; {FEWEST_DAYS} can")
    daily = DailyEquity(np.arange(len(returns) + 1), np.cumprod(np.append(1.0, 1.0 + returns)))
    samples = bootstrap(daily, draws, seed, risk_free=risk_free).samples
    of_sharpe = sharpe_interval(
        returns, draws, seed, holding_days=holding_days, risk_free=risk_free
    )
    return {name: interval(values) for name, values in samples.items()} | {"sharpe": of_sharpe}
