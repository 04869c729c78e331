"""Portfolios of runs: capital spread over equity curves, rebalanced on a schedule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput


@dataclass(frozen=True)
class PortfolioResult:
    """One portfolio over `n_times` instants.

    Attributes:
        equity: float64 `(n_times,)`.
        rebalance_rows: int64 `(n_rebalances,)`, rows at whose end capital is spread anew.
        weights: float64 `(n_rebalances, n_assets)`, fractions set there, each row sums to 1.
        cost: float64, paid for moving capital, in the currency of the equity.
    """

    equity: np.ndarray
    rebalance_rows: np.ndarray
    weights: np.ndarray
    cost: float


def equal_weight_portfolio(
    curves: np.ndarray, ts_us: np.ndarray, initial_cash: float, cost_rate: float
) -> PortfolioResult:
    """Spread capital evenly over the runs that are alive, anew at the first bar of each month.

    Between two rebalances each share follows its run's equity. A run that ends within the month
    keeps its last equity until the next rebalance and has no share after it, as has one that has
    lost everything; one that begins waits for the next. Only what is known at a bar's close
    decides the weights set there.

    Args:
        curves: float64 `(n_assets, n_times)`, equity of each run; NaN before its first and after
            its last bar.
        ts_us: int64 `(n_times,)`, strictly increasing microseconds UTC.
        initial_cash: starting capital.
        cost_rate: fraction of the moved capital that a rebalance costs.

    Raises:
        InvalidInput: where no run has any equity.
    """
    alive = np.isfinite(curves) & (curves > 0)
    known = np.flatnonzero(alive.any(axis=0))
    if len(known) == 0:
        raise InvalidInput("a portfolio needs at least one run with equity")
    month = ts_us.astype("M8[us]").astype("M8[M]").astype(np.int64)
    turns = np.flatnonzero(np.diff(month, prepend=month[0] - 1) != 0)
    # Where nothing is alive at a month's first bar, the shares stay as they are.
    rows = np.union1d(known[:1], turns[(turns > known[0]) & alive[:, turns].any(axis=0)])

    equity = np.full(curves.shape[1], initial_cash)
    weights = np.zeros((len(rows), len(curves)))
    held = np.zeros(len(curves))
    cost = 0.0
    for i, row in enumerate(rows):
        capital = equity[row]
        wanted = alive[:, row] / alive[:, row].sum()
        moved = np.abs(wanted * capital - held).sum() if i else 0.0
        cost += moved * cost_rate
        capital -= moved * cost_rate
        weights[i] = wanted
        end = rows[i + 1] + 1 if i + 1 < len(rows) else curves.shape[1]
        growth = _growth_since(curves[wanted > 0, row:end])
        shares = wanted[wanted > 0, None] * capital * growth
        equity[row:end] = shares.sum(axis=0)
        held = np.zeros(len(curves))
        held[wanted > 0] = shares[:, -1]
    return PortfolioResult(equity, rows, weights, cost)


def _growth_since(curves: np.ndarray) -> np.ndarray:
    """Each curve over its first value; what ends keeps its last value, what is lost stays 0."""
    last_seen = np.where(np.isfinite(curves), np.arange(curves.shape[1]), 0)
    filled = np.take_along_axis(curves, np.maximum.accumulate(last_seen, axis=1), axis=1)
    start = curves[:, :1]
    return np.divide(filled, start, out=np.zeros_like(filled), where=start > 0)
