"""Effective number of trials, and deflated Sharpe ratios.

A parameter grid is many trials, but many of them are nearly the same: if each counts in full,
nothing passes; if the grid counts as one, luck does. Trials with correlated returns are clustered,
and a cluster of m trials with a mean correlation of c counts as `c + (1 - c) * m`: as 1 if they are
identical, as m if they are uncorrelated (Bailey and Lopez de Prado 2014, "The Deflated Sharpe
Ratio", appendix 3).

Clusters come from average linkage on the distance sqrt((1 - correlation) / 2), cut at the highest
mean silhouette. Distance and measure are those of "optimal number of clusters" (ONC; Lopez de Prado
and Lewis 2019, "Detection of False Investment Strategies Using Unsupervised Learning Methods"); a
hierarchy replaces its k-means, which starts at random, so the same trials always give the same
count. A silhouette compares a trial's own cluster with the nearest other one, so it is undefined
both for a single cluster and for no clusters at all. Here every trial has an imaginary uncorrelated
neighbour, which makes these two cuts comparable with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.metrics.significance import (
    SharpeMoments,
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
)

MOST_CLUSTERED = 500
"""Trials above which a sample is clustered: the time grows with the cube of their number."""

_UNCORRELATED = np.sqrt(0.5)  # the distance at a correlation of 0
_UNKNOWN = -2


def effective_number_of_trials(returns: np.ndarray, n_trials: int | None = None) -> float:
    """Effective number of independent trials, between 1 and their number.

    The sum over clusters of `c + (1 - c) * m`, with m the number of trials in a cluster and c the
    mean correlation of its pairs. A trial with constant returns counts in full. Of more than
    MOST_CLUSTERED trials a random sample of that size (fixed seed) is clustered, and m is scaled
    up to all trials.

    Args:
        returns: float64 `(n_obs, n_sampled)`, simple returns per period, over the same periods.
        n_trials: number of trials, if the returns are a random sample of them; None if they are
            all of them.

    Raises:
        InvalidInput: for fewer than two periods, or returns that are NaN or infinite.
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


class CountingRule(StrEnum):
    """What the trials are that a Sharpe ratio is deflated by, which depends on what is claimed."""

    SETS = "parameter sets"
    SETS_AND_WINDOWS = "parameter sets x windows shown"
    WALK_FORWARDS = "walk-forwards"

    @staticmethod
    def of(split: str, window: Sequence[object]) -> CountingRule:
        """The rule for a run of this `split` on this window, whose ends are None where unbounded.

        Examples:
            >>> print(CountingRule.of("full", (None, None)))
            parameter sets
        """
        if split == "walk_forward":
            return CountingRule.WALK_FORWARDS
        whole = all(bound is None for bound in window)
        return CountingRule.SETS if whole else CountingRule.SETS_AND_WINDOWS


@dataclass(frozen=True)
class Family:
    """Size of the set of trials that a run was chosen from, the run included.

    Attributes:
        n_trials: number of trials.
        n_effective: effective number of independent trials, between 1 and `n_trials`.
        n_windows: number of windows that were shown, of which a run on one may be the best.
    """

    n_trials: int
    n_effective: float
    n_windows: int = 1

    def over_windows(self) -> Family:
        """The set that a run on one of the windows was chosen from: each trial in each window."""
        return Family(self.n_trials * self.n_windows, self.n_effective * self.n_windows)


def family_of(n_trials: int, returns: np.ndarray) -> Family:
    """The family of trials that may cover different periods.

    Args:
        n_trials: number of trials, at least 1.
        returns: float64 `(n_periods, n_sampled)`, simple returns of all trials or of a random
            sample; 0 in periods that a trial does not cover.

    Raises:
        InvalidInput: for returns that are NaN or infinite.
    """
    if n_trials == 1 or len(returns) < 2:
        return Family(n_trials, float(n_trials))
    # Rounding can leave a family of identical trials just below 1.
    return Family(n_trials, max(effective_number_of_trials(returns, n_trials), 1.0))


@dataclass(frozen=True)
class Deflated:
    """Significance of Sharpe ratios, float64 `(n_runs,)` each; NaN where undefined.

    Attributes:
        psr: probabilistic Sharpe ratio against zero, as if the run were the only trial.
        dsr: deflated Sharpe ratio for the `n_trials` of its family.
        dsr_effective: deflated Sharpe ratio for `n_effective`; never below `dsr`.
    """

    psr: np.ndarray
    dsr: np.ndarray
    dsr_effective: np.ndarray


def deflate(moments: SharpeMoments, families: Sequence[Family]) -> Deflated:
    """Probabilistic and deflated Sharpe ratios of runs, each deflated by its own family.

    The variance of the trials' Sharpe ratios is taken as 1 / (T - 1), that of T returns without
    skill. The paper estimates it from the trials; but on a fine grid of near copies that estimate
    falls to zero faster than their number raises the expected maximum, and truly bad trials inflate
    it. With a constant, every further trial raises the bar, and nothing lowers it.

    Args:
        moments: Sharpe ratio per period, skew, kurtosis and number of returns of each run.
        families: family of each run.

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
            "returns must have at least two rows (periods) and one column per trial, not the shape "
            f"{returns.shape}"
        )
    if not np.isfinite(returns).all():
        where = np.flatnonzero(~np.isfinite(returns).all(axis=0))[:5].tolist()
        raise InvalidInput(f"the returns of trials {where} are not finite")
    return returns


def _correlations(returns: np.ndarray) -> np.ndarray:
    """Correlation of each pair of trials; 0 with a trial of constant returns."""
    deviation = returns - returns.mean(axis=0)
    norm = np.sqrt((deviation**2).sum(axis=0))
    # Constant returns differ by rounding only.
    varies = norm > 1e-14 * np.sqrt(len(returns))
    unit = np.divide(deviation, norm, out=np.zeros_like(deviation), where=varies)
    correlation = np.clip(unit.T @ unit, -1, 1)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _clusters(correlation: np.ndarray) -> np.ndarray:
    """Cluster of each trial, at the cut with the highest mean silhouette; the coarsest of ties."""
    from scipy.cluster.hierarchy import average
    from scipy.spatial.distance import squareform

    if len(correlation) == 1:
        return np.zeros(1, np.int64)
    distance = np.sqrt((1 - correlation) / 2)
    # Two trials can be merged in one way only, and a call of scipy takes longer than the rest.
    merged = np.array([[0, 1]])
    if len(correlation) > 2:
        merged = average(squareform(distance, checks=False))[:, :2].astype(np.int64)
    scores = _mean_silhouettes(distance, merged)
    # Scores that differ by rounding only are ties.
    coarsest = int(np.argmax(scores >= scores.max() - 1e-12))
    _, first, labels = np.unique(_cuts(merged)[coarsest], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


@compiled
def _cuts(merged):
    """Cluster of each trial in every cut of a dendrogram, `(n_cuts, n_trials)`, coarsest first.

    The same as scipy's cut_tree, which dominates the time for the few trials of most families.
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


@compiled
def _mean_silhouettes(distance, merged):
    """Mean silhouette (Rousseeuw 1987) of every cut, float64 `(n_cuts,)`, coarsest first.

    The silhouette of a trial is (b - a) / max(a, b): a is its mean distance to the other trials of
    its cluster, b the lowest mean distance to another cluster, or to an uncorrelated trial if that
    is lower; 0 for a cluster of one. Each cut merges two clusters of the next finer one, and only
    what changes is recomputed: a merged cluster is never nearer than the nearer of its two parts.
    """
    n = len(distance)
    total = distance.copy()  # sum of distances from a trial to all members of a cluster
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


@compiled
def _nearest(total, size, alive, i, own):
    """The nearest cluster other than a trial's own; -1 if there is none."""
    nearest, least = -1, np.inf
    for cluster in range(len(size)):
        if alive[cluster] and cluster != own and total[i, cluster] / size[cluster] < least:
            nearest, least = cluster, total[i, cluster] / size[cluster]
    return nearest
