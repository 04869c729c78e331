"""Deflated Sharpe ratios of a rollup's portfolios, each of which counts as a trial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.stages.portfolios import Portfolio
from backtest_pipeline.research.ranking.trials import deflate, family_of
from backtest_pipeline.simulation.metrics.daily import daily_returns
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS
from backtest_pipeline.simulation.metrics.significance import SharpeMoments, sharpe_moments

_REASONS = {metric.name: metric.undefined for metric in FAMILY_METRICS}


def portfolios_deflated(
    portfolios: Sequence[Portfolio], others: int = 0
) -> list[tuple[dict[str, float], dict[str, str]]]:
    """The FAMILY_METRICS of each portfolio, and the reason for each that is NaN.

    All portfolios of the rollup form one family, because its reader may pick any strategy and
    scheme. `others` counts further portfolios that were tried.
    """
    returns = [_returns_by_day(portfolio) for portfolio in portfolios]
    family = family_of(len(portfolios) + others, _side_by_side(returns))
    undefined = SharpeMoments(*(np.array([np.nan]),) * 3, n_obs=0)
    own = [sharpe_moments(values[:, None]) if len(values) else undefined for _, values in returns]
    moments = SharpeMoments(
        np.array([portfolio.metrics["sharpe"] for portfolio in portfolios]) / np.sqrt(365.0),
        np.concatenate([one.skew for one in own]),
        np.concatenate([one.kurtosis for one in own]),
        np.array([len(values) for _, values in returns]),
    )
    worth = deflate(moments, [family] * len(portfolios))
    deflated = [
        {
            "dsr": float(dsr),
            "dsr_effective": float(dsr_effective),
            "n_trials": float(family.n_trials),
            "n_trials_effective": family.n_effective,
        }
        for dsr, dsr_effective in zip(worth.dsr, worth.dsr_effective, strict=True)
    ]
    return [
        (metrics, {name: _REASONS[name] for name, value in metrics.items() if np.isnan(value)})
        for metrics in deflated
    ]


def _returns_by_day(portfolio: Portfolio) -> tuple[int, np.ndarray]:
    """The day number of the first daily return, and the returns."""
    days = portfolio.ts // DAY_US
    if not len(days):
        return 0, np.empty(0)
    values = daily_returns(portfolio.result.equity[None, :], days)[:, 0]
    return int(days[-1]) + 1 - len(values), values


def _side_by_side(returns: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """Daily returns, float64 `(n_days, n_portfolios)`; 0 on days without the portfolio."""
    known = [(first, values) for first, values in returns if len(values)]
    begin = min((first for first, _ in known), default=0)
    end = max((first + len(values) for first, values in known), default=0)
    aligned = np.zeros((end - begin, len(returns)))
    for column, (first, values) in enumerate(returns):
        if len(values):
            aligned[first - begin : first - begin + len(values), column] = values
    return aligned
