"""Portfolio weights from a window of past returns, one function per scheme.

Each scheme takes float64 returns `(n_returns, n_assets)`, no column constant, and the largest
weight of one asset (above 1 / n_assets); it returns weights of 0 or more that sum to 1. Call them
through `scheme_weights`, which handles the order of assets, single assets and tight caps. Scipy's
solvers take a third of a second to load, so only the schemes that need them import them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backtest_pipeline.market.errors import BacktestError, UnknownName

EQUAL_WEIGHT = "equal_weight"
CVAR_LEVEL = 0.95
# As a fraction of the mean variance; splits a weight evenly between perfectly correlated assets.
_RIDGE = 1e-10
_NOTHING = 1e-12


def scheme_weights(scheme: str, returns: np.ndarray, max_weight: float = 1.0) -> np.ndarray:
    """Weights of a scheme, independent of the order of assets.

    If `n_assets * max_weight` is at most 1, each asset gets `max_weight`, and the rest is cash.

    Args:
        scheme: one of SCHEMES.
        returns: float64 `(n_returns, n_assets)`, fractions, oldest first, no column constant;
            `equal_weight` uses the number of columns only.
        max_weight: largest weight of one asset, above 0.

    Returns:
        float64 `(n_assets,)`, from 0 to `max_weight`, which sum to `min(1, n_assets * max_weight)`.

    Raises:
        UnknownName: for a scheme that does not exist.
        BacktestError: if a solver fails.
    """
    if scheme not in SCHEMES:
        raise UnknownName("portfolio scheme", scheme, SCHEMES)
    n_assets = returns.shape[1]
    if n_assets * max_weight <= 1.0:
        return np.full(n_assets, max_weight)
    if n_assets == 1:
        return np.ones(1)
    # Clustering and linear programs break ties by position, so assets are sorted by their returns.
    order = np.lexsort(returns) if len(returns) else np.arange(n_assets)
    weights = np.empty(n_assets)
    weights[order] = SCHEMES[scheme](returns[:, order], max_weight)
    return weights


def equal(returns: np.ndarray, max_weight: float) -> np.ndarray:
    """Equal weights, 1 / n_assets."""
    n_assets = returns.shape[1]
    return np.ones(n_assets) / n_assets


def inverse_volatility(returns: np.ndarray, max_weight: float) -> np.ndarray:
    """Weights proportional to 1 / standard deviation (ddof 1)."""
    inverse = 1.0 / returns.std(axis=0, ddof=1)
    return capped(inverse / inverse.sum(), max_weight)


def hierarchical_risk_parity(returns: np.ndarray, max_weight: float) -> np.ndarray:
    """Hierarchical risk parity: recursive bisection of clustered assets by inverse variance.

    Lopez de Prado, "Building Diversified Portfolios that Outperform Out-of-Sample", Journal of
    Portfolio Management 42(4), 2016, with the Ledoit-Wolf covariance and Ward linkage on the
    distance sqrt((1 - correlation) / 2). All halves of one depth are split at once.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    covariance = ledoit_wolf(returns)
    distance = np.sqrt(np.maximum(0.5 * (1.0 - np.corrcoef(returns.T)), 0.0))
    order = leaves_list(linkage(squareform(distance, checks=False), "ward"))
    covariance = covariance[np.ix_(order, order)]
    inverse = 1.0 / covariance.diagonal()
    terms = inverse[:, None] * covariance * inverse
    split = np.ones(len(order))
    starts = np.array([0])
    while len(starts) < len(order):
        ends = np.append(starts[1:], len(order))
        halves = np.union1d(starts, (starts + ends) // 2)
        blocks = np.add.reduceat(np.add.reduceat(terms, halves, axis=0), halves, axis=1)
        risk = blocks.diagonal() / np.add.reduceat(inverse, halves) ** 2
        left = np.searchsorted(halves, starts[ends - starts > 1])
        share = np.ones(len(halves))
        share[left] = 1.0 - risk[left] / (risk[left] + risk[left + 1])
        share[left + 1] = 1.0 - share[left]
        split *= np.repeat(share, np.diff(np.append(halves, len(order))))
        starts = halves
    weights = np.empty(len(order))
    weights[order] = split
    return capped(weights, max_weight)


def minimum_variance(returns: np.ndarray, max_weight: float) -> np.ndarray:
    """Minimum variance: weights that minimise `w' C w`, with C the Ledoit-Wolf covariance.

    Without a cap they are proportional to the y >= 0 that minimises `y' C y / 2 - sum(y)`, a
    non-negative least-squares problem (Lawson and Hanson). If these break the cap, they are the
    starting point of the search under the cap.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import nnls

    covariance = ledoit_wolf(returns)
    covariance.flat[:: len(covariance) + 1] += _RIDGE * covariance.trace() / len(covariance)
    root = np.linalg.cholesky(covariance)
    try:
        solved, _ = nnls(root.T, solve_triangular(root, np.ones(len(root)), lower=True))
    except RuntimeError as error:
        raise BacktestError(f"minimum variance of {len(root)} assets: {error}") from error
    weights = solved / solved.sum()
    if weights.max() <= max_weight:
        return weights
    return _below_cap(covariance, capped(weights, max_weight), max_weight)


def _below_cap(covariance: np.ndarray, weights: np.ndarray, max_weight: float) -> np.ndarray:
    """Minimum-variance weights under the cap, starting from feasible weights.

    A primal active-set method (Nocedal and Wright, "Numerical Optimization", algorithm 16.3): move
    the free weights to their optimum, or to the first bound on the way; then release the bound
    that gains most, until none does. Each step lowers the variance, so no set of bounds repeats.
    """
    free = (weights > 0.0) & (weights < max_weight)
    for _ in range(100 * len(weights)):
        step = _optimum(covariance, weights, free) - weights[free]
        slack = np.where(step > 0.0, max_weight - weights[free], weights[free])
        reach = np.divide(slack, np.abs(step), out=np.full_like(slack, np.inf), where=step != 0.0)
        if reach.min(initial=np.inf) < 1.0:
            first = reach.argmin()
            bound = np.flatnonzero(free)[first]
            weights[free] += reach[first] * step
            weights[bound] = max_weight if step[first] > 0.0 else 0.0
            free[bound] = False
            continue
        weights[free] += step
        slope = covariance @ weights
        level = slope[free].mean() if free.any() else slope[weights > 0.0].max()
        gain = np.where(weights > 0.0, slope - level, level - slope)
        gain[free] = 0.0
        if gain.max() <= 1e-11 * abs(level):
            return weights
        free[gain.argmax()] = True
        if free.sum() == 1:  # it can only gain what another weight loses
            free[np.where(weights > 0.0, slope, -np.inf).argmax()] = True
    raise BacktestError(f"minimum variance of {len(weights)} assets: the solver did not converge")


def _optimum(covariance: np.ndarray, weights: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The free weights that minimise variance, with the other weights and the sum fixed."""
    if not free.any():
        return weights[free]
    among = covariance[np.ix_(free, free)]
    pull = covariance[np.ix_(free, ~free)] @ weights[~free]
    solved = np.linalg.solve(among, np.column_stack([np.ones(len(among)), pull]))
    level = (weights[free].sum() + solved[:, 1].sum()) / solved[:, 0].sum()
    return level * solved[:, 0] - solved[:, 1]


def minimum_cvar(returns: np.ndarray, max_weight: float) -> np.ndarray:
    """Minimum conditional value at risk (CVaR): the mean loss of the worst 5 % of returns.

    Rockafellar and Uryasev, "Optimization of conditional value-at-risk", Journal of Risk 2(3),
    2000, through the dual of their linear program, which is half the size: the probabilities of
    the returns, each at most 1 / (5 % of their number), that hurt the best portfolio most. Its
    multipliers are the weights.
    """
    from scipy.optimize import linprog

    n_returns, n_assets = returns.shape
    worst = 1.0 / ((1.0 - CVAR_LEVEL) * n_returns)
    # Variables: a probability per return, the loss, and the shadow price of each asset's cap.
    tight = max_weight < 1.0
    above_cap = np.eye(n_assets) if tight else np.empty((n_assets, 0))
    n_caps = above_cap.shape[1]
    solution = linprog(
        np.concatenate([np.zeros(n_returns), [-1.0], np.full(n_caps, max_weight)]),
        A_ub=np.hstack([returns.T, np.ones((n_assets, 1)), -above_cap]),
        b_ub=np.zeros(n_assets),
        A_eq=np.concatenate([np.ones(n_returns), np.zeros(1 + n_caps)])[None],
        b_eq=[1.0],
        bounds=[(0.0, worst)] * n_returns + [(None, None)] + [(0.0, None)] * n_caps,
        method="highs-ds",
        options={"presolve": False},  # takes as long as the solution
    )
    if solution.status != 0:
        raise BacktestError(f"minimum CVaR of {n_assets} assets: {solution.message}")
    weights = -solution.ineqlin.marginals
    weights[weights < _NOTHING] = 0.0
    return np.minimum(weights / weights.sum(), max_weight)


SCHEMES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    EQUAL_WEIGHT: equal,
    "inverse_volatility": inverse_volatility,
    "hrp": hierarchical_risk_parity,
    "minimum_variance": minimum_variance,
    "cvar": minimum_cvar,
}


def capped(weights: np.ndarray, max_weight: float) -> np.ndarray:
    """Cap weights, and distribute the excess over the others in proportion to their weights.

    If the others are all 0, they share it equally.
    """
    weights = weights.copy()
    full = np.zeros(len(weights), bool)
    while (over := weights > max_weight * (1.0 + _NOTHING)).any():
        full |= over
        weights[full] = max_weight
        others = weights[~full] if weights[~full].any() else np.ones(len(full) - full.sum())
        weights[~full] = others * ((1.0 - max_weight * full.sum()) / others.sum())
    return weights


def ledoit_wolf(returns: np.ndarray) -> np.ndarray:
    """Covariance (ddof 0) shrunk towards equal variances and zero correlation.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
    Journal of Multivariate Analysis 88(2), 2004.

    Args:
        returns: float64 `(n_returns, n_assets)`.

    Returns:
        float64 `(n_assets, n_assets)`.
    """
    n_returns, n_assets = returns.shape
    centred = returns - returns.mean(axis=0)
    sample = centred.T @ centred / n_returns
    mean = sample.trace() / n_assets
    squares = float((sample * sample).sum())
    dispersion = squares - n_assets * mean**2
    error = (float(((centred * centred).sum(axis=1) ** 2).mean()) - squares) / n_returns
    shrinkage = min(max(error, 0.0) / dispersion, 1.0) if dispersion > 0.0 else 0.0
    shrunk = (1.0 - shrinkage) * sample
    shrunk.flat[:: n_assets + 1] += shrinkage * mean
    return shrunk
