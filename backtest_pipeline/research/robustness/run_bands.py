"""The one 90 % band of a run, the same whichever command or page prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.research.robustness.bootstrap import (
    FEWEST_DAYS,
    DailyEquity,
    bootstrap,
    interval,
)
from backtest_pipeline.research.robustness.sharpe_interval import sharpe_interval

BANDS_VERSION = 1
"""Raise it when the same equity gives another band."""
DRAWS, SEED = 1000, 0
BANDED = ("total_return", "sharpe", "max_drawdown")


@dataclass(frozen=True)
class RunBands:
    """Intervals of a run's metrics, and percentiles of its resampled equity.

    Attributes:
        intervals: lower and upper end by metric, NaN where undefined.
        day: int64 `(n_days + 1,)`, UTC days since 1970.
        percentiles: float64 `(5, n_days + 1)`, BAND_PERCENTILES of equity, quote currency.
    """

    intervals: Mapping[str, tuple[float, float]]
    day: np.ndarray
    percentiles: np.ndarray


def bands_of(
    daily: DailyEquity, *, holding_days: float | None = None, risk_free: float = 0.0
) -> RunBands | None:
    """The band of a run: DRAWS histories of resampled days, from SEED.

    The numbers of `robustness.assess` with the same draws and seed: studentised for the Sharpe
    ratio, the 5th and 95th percentile for total return and drawdown.

    Args:
        daily: the run's daily equity.
        holding_days: mean time that a position is held, days; None for a run without closed trades.
        risk_free: risk-free return per day, a fraction.

    Returns:
        None for fewer than FEWEST_DAYS daily returns, or constant ones.
    """
    returns = daily.returns
    if len(returns) < FEWEST_DAYS or not np.ptp(returns):
        return None
    resampled = bootstrap(daily, DRAWS, SEED, risk_free=risk_free)
    held = 1.0 if holding_days is None or np.isnan(holding_days) else holding_days
    of_sharpe = sharpe_interval(returns, DRAWS, SEED, holding_days=held, risk_free=risk_free)
    intervals = {name: interval(resampled.samples[name]) for name in BANDED}
    return RunBands(intervals | {"sharpe": of_sharpe}, daily.day, resampled.bands)
