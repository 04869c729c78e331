"""What the folds of a walk-forward, and its out-of-sample run, say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

WFO_THRESHOLD = 0.6
"""Efficiency below which a walk-forward is flagged. It decides nothing alone: it divides by the
best of the training grid, which choosing inflates, and rejects an honest rule of Sharpe 1 the more
surely the more data there are."""
FEWEST_FOLDS = 5
"""Folds with both Sharpe ratios, below which a walk-forward is not judged."""
SIGNIFICANT = 0.95


class WalkForwardVerdict(StrEnum):
    """Whether results out of sample keep what training showed."""

    PASSED = "passed"
    OVERFIT = "overfit"
    INSIGNIFICANT = "insignificant"
    UNDEFINED = "undefined"


@dataclass(frozen=True)
class Efficiency:
    """How much of the training Sharpe is left out of sample, and whether that is more than luck.

    Attributes:
        train_sharpe, test_sharpe: means over the folds in which both are defined; None where
            there is none.
        n_folds: how many these are.
        ratio: test over train; None where undefined.
        verdict: UNDEFINED without a ratio or for too few folds; PASSED where the out-of-sample run
            is significant; else OVERFIT where the ratio is below the threshold, else INSIGNIFICANT.
        reason: all that it failed, and a low efficiency also where it PASSED.
    """

    train_sharpe: float | None
    test_sharpe: float | None
    n_folds: int
    ratio: float | None
    verdict: WalkForwardVerdict
    reason: str = ""


def efficiency(
    train: Sequence[float],
    test: Sequence[float],
    psr: float,
    n_walk_forwards: int,
    threshold: float = WFO_THRESHOLD,
) -> Efficiency:
    """Mean test Sharpe over mean training Sharpe (Pardo 2008, "walk-forward efficiency"), judged.

    A mean training Sharpe of zero or less leaves it undefined: two losses would divide to a
    good-looking number.

    Args:
        train, test: Sharpe ratios by fold, NaN where undefined.
        psr, n_walk_forwards, threshold: as `judged` takes them.
    """
    ratios = np.array([train, test], np.float64).reshape(2, -1)
    both = np.isfinite(ratios).all(axis=0)
    n = int(both.sum())
    if n == 0:
        return judged(None, None, 0, psr, n_walk_forwards, threshold)
    trained, tested = ratios[:, both].mean(axis=1).tolist()
    return judged(trained, tested, n, psr, n_walk_forwards, threshold)


def judged(
    train_sharpe: float | None,
    test_sharpe: float | None,
    n_folds: int,
    psr: float,
    n_walk_forwards: int,
    threshold: float,
) -> Efficiency:
    """The verdict on the means of the folds and the out-of-sample run.

    No bar of the out-of-sample run took part in a choice of parameters, so that what was tried in
    training does not count against it; but who runs several walk-forwards on an asset and takes one
    that passes has a chance with each (Bonferroni).

    Args:
        train_sharpe, test_sharpe: means over the folds in which both are defined.
        n_folds: how many these are.
        psr: probabilistic Sharpe ratio of the stitched out-of-sample run, NaN where undefined.
        n_walk_forwards: distinct walk-forwards of the asset and timeframe, this one among them.
        threshold: efficiency below which it is flagged.
    """
    if train_sharpe is None or test_sharpe is None:
        reason = "no fold has both a training and a test Sharpe"
        return Efficiency(None, None, 0, None, WalkForwardVerdict.UNDEFINED, reason)
    means = train_sharpe, test_sharpe, n_folds
    if train_sharpe <= 0:
        reason = "the mean training Sharpe is not above 0"
        return Efficiency(*means, None, WalkForwardVerdict.UNDEFINED, reason)
    ratio = test_sharpe / train_sharpe
    low = ratio < threshold
    flag = f"efficiency {ratio:.2f} is below {threshold:g}" if low else ""
    if n_folds < FEWEST_FOLDS:
        reason = f"{n_folds} folds have both Sharpe ratios, at least {FEWEST_FOLDS} are needed"
        return Efficiency(*means, ratio, WalkForwardVerdict.UNDEFINED, _joined(reason, flag))
    needed = 1 - (1 - SIGNIFICANT) / n_walk_forwards
    if psr >= needed:
        return Efficiency(*means, ratio, WalkForwardVerdict.PASSED, flag)
    of_how_many = f", as one of {n_walk_forwards} walk-forwards" if n_walk_forwards > 1 else ""
    luck = (
        f"probabilistic Sharpe ratio out of sample {psr:.3f}, {needed:.3f} needed{of_how_many}"
        if psr >= 0
        else "the out-of-sample run has no Sharpe ratio"
    )
    verdict = WalkForwardVerdict.OVERFIT if low else WalkForwardVerdict.INSIGNIFICANT
    return Efficiency(*means, ratio, verdict, _joined(flag, luck))


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def in_words(verdict: str, reason: str | None) -> str:
    """A verdict with its reason: what a run failed, or what it passed in spite of.

    Examples:
        >>> in_words("passed", "efficiency 0.47 is below 0.6")
        'passed, although efficiency 0.47 is below 0.6'
        >>> in_words("overfit", "efficiency 0.10 is below 0.6"), in_words("passed", "")
        ('overfit: efficiency 0.10 is below 0.6', 'passed')
    """
    if not reason:
        return verdict
    passed = verdict == WalkForwardVerdict.PASSED
    return f"{verdict}, although {reason}" if passed else f"{verdict}: {reason}"
