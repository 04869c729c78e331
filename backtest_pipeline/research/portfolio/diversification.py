"""Correlation of a portfolio's members, and the risk that each contributes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.research.portfolio.portfolio import (
    PortfolioCurve,
    filled_forward,
    growth_since,
)

LEAST_COMMON = 30
"""Common returns that two members need for a correlation."""


@dataclass(frozen=True)
class Correlations:
    """Pairwise correlations of members, each over the returns that both have.

    Attributes:
        matrix: float64 `(n_assets, n_assets)`; NaN for fewer than LEAST_COMMON common returns, or
            if one of the two is constant over them.
        common: int64 `(n_assets, n_assets)`, number of common returns.
    """

    matrix: np.ndarray
    common: np.ndarray

    @property
    def mean_pairwise(self) -> float:
        """Mean of all defined pairs; NaN if there is none."""
        pairs = self.matrix[np.triu_indices(len(self.matrix), 1)]
        defined = pairs[np.isfinite(pairs)]
        return float(defined.mean()) if len(defined) else np.nan


def correlations(curves: np.ndarray) -> Correlations:
    """Pearson correlations of the returns of equity curves.

    Args:
        curves: float64 `(n_assets, n_times)`, equity; NaN where there is no bar. A return needs
            equity at two consecutive times; there is none after a total loss.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = curves[:, 1:] / curves[:, :-1] - 1.0
    known = np.isfinite(returns)
    values = np.where(known, returns, 0.0)
    seen = known.astype(np.float64)
    common = seen @ seen.T
    n = np.maximum(common, 1.0)
    means, squares = (values @ seen.T) / n, ((values * values) @ seen.T) / n
    variance = squares - means**2
    # The variance of a constant is zero up to rounding.
    varies = variance > 1e-14 * squares
    given = (common >= LEAST_COMMON) & varies & varies.T
    covariance = (values @ values.T) / n - means * means.T
    scale = np.sqrt(np.where(given, variance * variance.T, 1.0))
    matrix = np.where(given, np.clip(covariance / scale, -1.0, 1.0), np.nan)
    return Correlations(matrix, common.astype(np.int64))


def contributions(curves: np.ndarray, portfolio: PortfolioCurve) -> np.ndarray:
    """Contribution of each member to the portfolio's return of each bar, before rebalancing costs.

    Args:
        curves: float64 `(n_assets, n_times)`, the equity curves that the portfolio consists of.
        portfolio: the portfolio, from `form_portfolio`.

    Returns:
        float64 `(n_assets, n_bars)`, fractions of the portfolio's equity at the previous close, for
        the bars after the first rebalance.
    """
    rows, equity = portfolio.rebalance_rows, portfolio.equity
    first = portfolio.start + 1
    filled = filled_forward(curves)
    added = np.zeros((len(curves), max(len(equity) - first, 0)))
    for i, (row, weights) in enumerate(zip(rows, portfolio.weights, strict=True)):
        end = rows[i + 1] + 1 if i + 1 < len(rows) else len(equity)
        held = weights > 0
        steps = np.diff(growth_since(filled[held, row:end]), axis=1)
        before = equity[row : end - 1]
        scale = np.divide(equity[row], before, out=np.zeros_like(before), where=before > 0)
        added[held, row + 1 - first : end - first] = weights[held, None] * steps * scale
    return added


@dataclass(frozen=True)
class Diversification:
    """Diversification of one portfolio; NaN if its return is constant.

    Attributes:
        variance: variance of the portfolio's bar returns before rebalancing costs, ddof 1.
        risk_contributions: float64 `(n_assets,)`, which sum to `variance`.
        ratio: diversification ratio.
    """

    variance: float
    risk_contributions: np.ndarray
    ratio: float

    @property
    def effective_bets(self) -> float:
        """Effective number of bets, the square of the diversification ratio."""
        return self.ratio**2


def diversification(added: np.ndarray) -> Diversification:
    """Risk contributions and diversification ratio of a portfolio.

    With K the covariance of the members' contributions (`diag(w) C diag(w)` for constant weights w
    and the covariance C of returns):

    - risk contributions `K 1`: covariance of each member's contribution with the portfolio's return
      (Euler's decomposition; Tasche, "Risk contributions and performance measurement", 1999);
    - diversification ratio: sum of the members' volatilities over the portfolio's (Choueifaty and
      Coignard, "Toward maximum diversification", Journal of Portfolio Management 35(1), 2008);
    - effective number of bets: the square of that ratio, which is n for n independent members of
      equal volatility, 1 for identical ones, and n / (1 + (n - 1) r) if all correlations are r
      (Choueifaty, Froidure and Reynier, "Properties of the most diversified portfolio", Journal of
      Investment Strategies 2(2), 2013). Meucci's entropies would not do: for equal weights and
      correlations they are 1 (principal components) or n (minimum torsion), whatever r is.

    Args:
        added: float64 `(n_assets, n_bars)`, fractions, from `contributions`.
    """
    n_assets, n_bars = added.shape
    if n_bars < 2:
        return Diversification(np.nan, np.full(n_assets, np.nan), np.nan)
    centred = added - added.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / (n_bars - 1)
    parts = covariance.sum(axis=1)
    variance = float(parts.sum())
    if variance <= 1e-28:  # constant returns, up to rounding
        return Diversification(np.nan, np.full(n_assets, np.nan), np.nan)
    volatilities = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
    return Diversification(variance, parts, float(volatilities.sum() / np.sqrt(variance)))


@dataclass(frozen=True)
class Clusters:
    """The tree of clusters of members, for drawing.

    Attributes:
        order: int64 `(n_assets,)`, members from left to right, so that no branches cross.
        across: float64 `(n_assets - 1, 4)`, corners of each join in widths of a member: the left
            branch from below, up, over, and down to the right one.
        heights: float64 `(n_assets - 1, 4)`, distances of these corners.
    """

    order: np.ndarray
    across: np.ndarray
    heights: np.ndarray


def clusters(matrix: np.ndarray) -> Clusters:
    """Members by average linkage on the distance sqrt((1 - correlation) / 2) (Mantegna 1999).

    Args:
        matrix: float64 `(n_assets, n_assets)`, correlations of two members at least; NaN counts
            as 0.

    Examples:
        >>> clusters(np.array([[1, 0, 0.9], [0, 1, 0], [0.9, 0, 1]])).order.tolist()
        [1, 0, 2]
    """
    from scipy.cluster.hierarchy import dendrogram, linkage
    from scipy.spatial.distance import squareform

    distance = np.sqrt(np.maximum(0.5 * (1.0 - np.nan_to_num(matrix)), 0.0))
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average")
    drawn = dendrogram(tree, no_plot=True)
    # Leaves of scipy's drawing stand at 5, 15, 25 and so on.
    return Clusters(
        np.array(drawn["leaves"]), np.array(drawn["icoord"]) / 10.0, np.array(drawn["dcoord"])
    )
