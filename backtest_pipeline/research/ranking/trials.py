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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.metrics.significance import (
    SharpeMoments,
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
)

MOST_CLUSTERED = 500
"""Trials above which a sample is clustered: what it takes grows with the cube of their number."""

_UNCORRELATED = np.sqrt(0.5)  # the distance at a correlation of 0
_UNKNOWN = -2


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
    """

    n_trials: int
    n_effective: float


def family_of(n_trials: int, returns: np.ndarray) -> Family:
    """Trials over any stretches of time as a family.

    Args:
        n_trials: how many there are, one at least.
        returns: float64 `(n_periods, n_sampled)`, of all or of a random sample of them, 0 where a
            trial was not yet or no longer there.

    Raises:
        InvalidInput: for returns that are NaN or infinite.
    """
    if n_trials == 1 or len(returns) < 2:
        return Family(n_trials, float(n_trials))
    # Rounding may leave a family of copies a hair below one.
    return Family(n_trials, max(effective_number_of_trials(returns, n_trials), 1.0))


@dataclass(frozen=True)
class Deflated:
    """What Sharpe ratios are worth, float64 `(n_runs,)` each; NaN where undefined.

    Attributes:
        psr: probability that the true Sharpe ratio is above zero, as if the run had been the only
            trial.
        dsr: the same, deflated by `n_trials` of its family.
        dsr_effective: the same, deflated by `n_effective`; never below `dsr`.
    """

    psr: np.ndarray
    dsr: np.ndarray
    dsr_effective: np.ndarray


def deflate(moments: SharpeMoments, families: Sequence[Family]) -> Deflated:
    """The significance of runs, each after all that was tried in its family.

    Without skill the Sharpe ratio of T returns has the variance 1 / (T - 1), and that is the
    variance of trials that the deflated Sharpe ratio takes here. The paper estimates it from the
    trials; but a fine grid of near copies drives such an estimate to zero faster than their number
    raises the maximum to be expected, and trials that are bad in truth raise it. A constant makes
    each further trial raise the bar, and nothing lower it.

    Args:
        moments: of each run.
        families: of each run.

    Raises:
        InvalidInput: for a kurtosis below 1, or anything infinite.
    """
    measured = (
        np.asarray(moments.sharpe, float),
        np.asarray(moments.n_obs, float),
        moments.skew,
        moments.kurtosis,
    )
    variance = 1 / np.maximum(measured[1] - 1, 1)
    n_trials = np.array([family.n_trials for family in families], float)
    n_effective = np.array([family.n_effective for family in families])
    return Deflated(
        psr=probabilistic_sharpe_ratio(*measured),
        dsr=deflated_sharpe_ratio(*measured, variance, n_trials),
        dsr_effective=deflated_sharpe_ratio(*measured, variance, n_effective),
    )


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
    scores = _mean_silhouettes(distance, merged)
    # Cuts whose scores differ by rounding alone are as good as each other.
    coarsest = int(np.argmax(scores >= scores.max() - 1e-12))
    _, first, labels = np.unique(_cuts(merged)[coarsest], return_index=True, return_inverse=True)
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
def _mean_silhouettes(distance, merged):
    """Mean silhouette (Rousseeuw 1987) of every cut, the coarsest first.

    That of a trial is (b - a) / max(a, b), a being the mean distance to the others of its cluster,
    b the least mean distance to another one, an uncorrelated one being always there; 0 for a
    cluster of one. From cut to cut two clusters are merged, and only what that changes is computed:
    a merged cluster is never nearer than the nearer of the two was.
    """
    n = len(distance)
    total = distance.copy()  # from a trial to all members of a cluster
    size, label = np.ones(n, np.int64), np.arange(n)
    alive, name = np.ones(n, np.bool_), np.arange(2 * n - 1)
    nearest = np.full(n, _UNKNOWN)
    scores = np.zeros(n)
    for k in range(n - 1):
        kept, gone = name[merged[k, 0]], name[merged[k, 1]]
        name[n + k] = kept
        total[:, kept] += total[:, gone]
        size[kept] += size[gone]
        alive[gone] = False
        score = 0.0
        for i in range(n):
            if label[i] == gone:
                label[i] = kept
            own = label[i]
            if size[own] == 1:
                continue
            if nearest[i] == kept or nearest[i] == gone or nearest[i] == _UNKNOWN:
                nearest[i] = _nearest(total, size, alive, i, own)
            within = total[i, own] / (size[own] - 1)
            beyond = _UNCORRELATED
            if nearest[i] >= 0:
                beyond = min(beyond, total[i, nearest[i]] / size[nearest[i]])
            if max(within, beyond) > 0.0:
                score += (beyond - within) / max(within, beyond)
        scores[n - 2 - k] = score / n
    return scores


@njit(cache=True, nogil=True)
def _nearest(total, size, alive, i, own):
    """The cluster, other than its own, that a trial is nearest to; -1 where there is none."""
    found, least = -1, np.inf
    for cluster in range(len(size)):
        if alive[cluster] and cluster != own and total[i, cluster] / size[cluster] < least:
            found, least = cluster, total[i, cluster] / size[cluster]
    return found
