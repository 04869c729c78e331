"""How many strategies were really tried, and what the best of them is worth after all.

A grid of parameters is many trials, but many of them do nearly the same: where each counts in
full, nothing passes; where the grid counts as one, luck does. Trials whose returns move together
are clustered, and a cluster of m trials with a mean correlation c counts as `c + (1 - c) * m`: as
one where they are the same, as m where they have nothing in common (Bailey and Lopez de Prado
2014, "The Deflated Sharpe Ratio", appendix 3).

The clusters are those of average linkage on the distance sqrt((1 - correlation) / 2), cut where
the mean silhouette is highest. This is the distance and the measure of "optimal number of
clusters" (ONC; Lopez de Prado and Lewis 2019, "Detection of False Investment Strategies Using
Unsupervised Learning Methods"); a hierarchy takes the place of its k-means, which starts at
random, so that the same trials always have the same count. A silhouette compares a trial's own
cluster with the nearest other one, and so can judge neither one cluster of all nor no clusters at
all. Here an uncorrelated trial always counts as a neighbour, which makes both comparable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.significance import (
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
    sharpe_moments,
)

MOST_CLUSTERED = 500
"""Trials above which a sample is clustered: what it takes grows with the cube of their number."""

_UNCORRELATED = np.sqrt(0.5)  # the distance at a correlation of 0


@dataclass(frozen=True)
class FamilySignificance:
    """What the best of a family of trials is worth.

    Attributes:
        best: column of the highest Sharpe ratio.
        sharpe: its Sharpe ratio, per period.
        n_trials: trials, each counting.
        n_effective: trials of their own kind, between 1 and `n_trials`.
        trials_variance: variance of the Sharpe ratios of all trials, per period.
        psr: probability that the best one's true Sharpe ratio is above zero, as if it had been the
            only trial.
        dsr: the same, deflated by `n_trials`.
        dsr_effective: the same, deflated by `n_effective`; never below `dsr`.
    """

    best: int
    sharpe: float
    n_trials: int
    n_effective: float
    trials_variance: float
    psr: float
    dsr: float
    dsr_effective: float


def family_significance(returns: np.ndarray) -> FamilySignificance:
    """Significance of the best trial, for the raw and the effective number of trials.

    Both use the variance over all trials: clusters are too few to estimate one from. A trial whose
    returns never vary has no Sharpe ratio, but was a trial and counts.

    Args:
        returns: float64 `(n_obs, n_trials)`, simple returns per period over one stretch of time.

    Raises:
        InvalidInput: for fewer than two rows, returns that are NaN or infinite, or where no trial
            has returns that vary.
    """
    moments = sharpe_moments(_checked(returns))
    if np.isnan(moments.sharpe).all():
        raise InvalidInput("no trial has returns that vary, so that none has a Sharpe ratio")
    best = int(np.nanargmax(moments.sharpe))
    n_effective = effective_number_of_trials(returns)
    variance = trials_variance(moments.sharpe)
    sharpe, skew = float(moments.sharpe[best]), float(moments.skew[best])
    measured = (sharpe, moments.n_obs, skew, float(moments.kurtosis[best]))
    return FamilySignificance(
        best=best,
        sharpe=sharpe,
        n_trials=returns.shape[1],
        n_effective=n_effective,
        trials_variance=variance,
        psr=probabilistic_sharpe_ratio(*measured),
        dsr=deflated_sharpe_ratio(*measured, variance, returns.shape[1]),
        dsr_effective=deflated_sharpe_ratio(*measured, variance, n_effective),
    )


def trials_variance(sharpes: np.ndarray) -> float:
    """Variance (ddof 1) of the Sharpe ratios that are defined; 0 where fewer than two are.

    Args:
        sharpes: float64 `(n_trials,)`, all per the same length of time, NaN where undefined.
    """
    known = sharpes[np.isfinite(sharpes)]
    return float(known.var(ddof=1)) if len(known) > 1 else 0.0


def effective_number_of_trials(returns: np.ndarray, n_trials: int | None = None) -> float:
    """Number of independent trials that the given ones amount to, between 1 and their count.

    The sum over the clusters of `c + (1 - c) * m`, where m is the size of a cluster and c the mean
    correlation of its pairs. A trial whose returns never vary counts in full. Of more than
    MOST_CLUSTERED trials so many are clustered, taken at random with a fixed seed, and each cluster
    counts with as many members as it has in proportion.

    Args:
        returns: float64 `(n_obs, n_sampled)`, simple returns per period over one stretch of time.
        n_trials: how many there are, where the returns are a random sample of them.

    Raises:
        InvalidInput: for fewer than two rows, or returns that are NaN or infinite.
    """
    sample = _checked(returns)
    total = sample.shape[1] if n_trials is None else n_trials
    if sample.shape[1] > MOST_CLUSTERED:
        chosen = np.random.default_rng(0).choice(sample.shape[1], MOST_CLUSTERED, replace=False)
        sample = sample[:, chosen]
    correlation = _correlations(sample)
    labels = _clusters(correlation)
    count = 0.0
    for cluster in range(labels.max() + 1):
        within = correlation[np.ix_(labels == cluster, labels == cluster)]
        m = len(within)
        shared = max((within.sum() - m) / (m * (m - 1)), 0.0) if m > 1 else 0.0
        count += shared + (1 - shared) * m * total / len(correlation)
    return float(count)


@dataclass(frozen=True)
class Family:
    """The trials that a run was chosen from, itself among them.

    Attributes:
        n_trials: each counting.
        n_effective: trials of their own kind, between 1 and `n_trials`.
        spread: variance of the trials' Sharpe ratios, each times the root of the number of its
            returns: about 1 for unrelated trials without an edge, however long they are. Over the
            number of a run's returns it is the variance that `deflated_sharpe_ratio` asks for.
    """

    n_trials: int
    n_effective: float
    spread: float


def family_of(sharpes: np.ndarray, n_obs: np.ndarray, returns: np.ndarray) -> Family:
    """Trials over any stretches of time as a family.

    Args:
        sharpes: float64 `(n_trials,)`, per period, NaN where undefined.
        n_obs: int64 `(n_trials,)`, returns that each was measured on.
        returns: float64 `(n_periods, n_sampled)`, of all or of a random sample of them, 0 where a
            trial was not yet or no longer there; the periods may be longer than those of the
            Sharpe ratios.

    Raises:
        InvalidInput: for returns that are NaN or infinite.
    """
    n_trials = len(sharpes)
    comparable = n_trials > 1 and len(returns) > 1
    return Family(
        n_trials=n_trials,
        n_effective=effective_number_of_trials(returns, n_trials) if comparable else n_trials,
        spread=trials_variance(sharpes * np.sqrt(n_obs)),
    )


def cluster_trials(returns: np.ndarray) -> np.ndarray:
    """Which cluster each trial belongs to.

    Args:
        returns: float64 `(n_obs, n_trials)`, simple returns per period over one stretch of time.

    Returns:
        int64 `(n_trials,)`, from 0 on in the order of the first member.

    Raises:
        InvalidInput: for fewer than two rows, or returns that are NaN or infinite.
    """
    return _clusters(_correlations(_checked(returns)))


def _checked(returns: np.ndarray) -> np.ndarray:
    if returns.ndim != 2 or len(returns) < 2 or returns.shape[1] == 0:
        raise InvalidInput(
            "returns are two rows of periods at least and one column per trial, not an array of "
            f"shape {returns.shape}"
        )
    if not np.isfinite(returns).all():
        where = np.flatnonzero(~np.isfinite(returns).all(axis=0))[:5].tolist()
        raise InvalidInput(f"returns of trials {where} are not finite")
    return returns


def _correlations(returns: np.ndarray) -> np.ndarray:
    """Correlation of each pair; what never varies is correlated with nothing."""
    deviation = returns - returns.mean(axis=0)
    norm = np.sqrt((deviation**2).sum(axis=0))
    # Identical returns differ by rounding alone.
    varies = norm > 1e-14 * np.sqrt(len(returns))
    unit = np.divide(deviation, norm, out=np.zeros_like(deviation), where=varies)
    correlation = np.clip(unit.T @ unit, -1, 1)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _clusters(correlation: np.ndarray) -> np.ndarray:
    """The cut of the dendrogram with the highest mean silhouette; the coarsest if several have."""
    from scipy.cluster.hierarchy import average
    from scipy.spatial.distance import squareform

    if len(correlation) == 1:
        return np.zeros(1, np.int64)
    distance = np.sqrt((1 - correlation) / 2)
    # Asking scipy takes longer than all the rest, and two can be merged in one way only.
    merged = np.array([[0, 1]])
    if len(correlation) > 2:
        merged = average(squareform(distance, checks=False))[:, :2].astype(np.int64)
    cuts = _cuts(merged)
    scores = [_silhouettes(distance, labels).mean() for labels in cuts]
    _, first, labels = np.unique(
        cuts[int(np.argmax(scores))], return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(first))[labels]


@njit(cache=True, nogil=True)
def _cuts(merged):
    """The cluster of each trial in every cut of a dendrogram, the coarsest cut first.

    As scipy's cut_tree, which takes longer than all the rest for the few trials of most families.
    """
    n = len(merged) + 1
    cuts = np.empty((n, n), np.int64)
    labels, name = np.arange(n), np.arange(2 * n - 1)
    cuts[n - 1] = labels
    for k in range(n - 1):
        kept, gone = name[merged[k, 0]], name[merged[k, 1]]
        name[n + k] = kept
        labels[labels == gone] = kept
        cuts[n - 2 - k] = labels
    return cuts


@njit(cache=True, nogil=True)
def _silhouettes(distance, labels):
    """Silhouette of each trial (Rousseeuw 1987), an uncorrelated one being always a neighbour.

    (b - a) / max(a, b), a being the mean distance to the others of the cluster, b the least mean
    distance to another cluster; 0 for a cluster of one.
    """
    n = len(labels)
    size = np.bincount(labels)
    found = np.zeros(n)
    total = np.empty(len(size))
    for i in range(n):
        if size[labels[i]] == 1:
            continue
        total[:] = 0.0
        for j in range(n):
            total[labels[j]] += distance[i, j]
        own = total[labels[i]] / (size[labels[i]] - 1)
        nearest = _UNCORRELATED
        for cluster in range(len(size)):
            if cluster != labels[i] and size[cluster] > 0:
                nearest = min(nearest, total[cluster] / size[cluster])
        if max(own, nearest) > 0.0:
            found[i] = (nearest - own) / max(own, nearest)
    return found
