"""What the folds of a walk-forward, and its out-of-sample run, say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

WFO_THRESHOLD = 0.6
FEWEST_FOLDS = 5
"""Folds with both Sharpe ratios, below which their means say nothing."""
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
        verdict: UNDEFINED without a ratio or for too few folds, else OVERFIT where the ratio is
            below the threshold, else INSIGNIFICANT where the out-of-sample run may be luck.
        reason: all that it failed; empty where PASSED.
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
    n_strategies: int,
    threshold: float = WFO_THRESHOLD,
) -> Efficiency:
    """Mean test Sharpe over mean training Sharpe (Pardo 2008, "walk-forward efficiency").

    A mean training Sharpe of zero or less leaves it undefined: two losses would divide to a
    good-looking number. The ratio of a few noisy means is above any threshold every now and then;
    so at least FEWEST_FOLDS folds, and half of them all, must have both Sharpe ratios, and the
    whole out-of-sample run must be significant. No bar of it took part in a choice of parameters;
    but who walks every strategy and takes one that passes has a chance with each (Bonferroni).

    Args:
        train, test: Sharpe ratios by fold, NaN where undefined.
        psr: probabilistic Sharpe ratio of the stitched out-of-sample run, NaN where undefined.
        n_strategies: strategies that one could have walked instead, this one among them.
        threshold: the ratio from which on it is not called overfit.
    """
    ratios = np.array([train, test], np.float64).reshape(2, -1)
    both = np.isfinite(ratios).all(axis=0)
    n = int(both.sum())
    if n == 0:
        reason = "no fold has both a training and a test Sharpe"
        return Efficiency(None, None, 0, None, WalkForwardVerdict.UNDEFINED, reason)
    trained, tested = (float(mean) for mean in ratios[:, both].mean(axis=1))
    if trained <= 0:
        reason = "the mean training Sharpe is not above 0"
        return Efficiency(trained, tested, n, None, WalkForwardVerdict.UNDEFINED, reason)
    ratio = tested / trained
    least = max(FEWEST_FOLDS, -(-ratios.shape[1] // 2))
    failed = {}
    if n < least:
        failed[WalkForwardVerdict.UNDEFINED] = f"{n} folds have both Sharpe ratios, {least} must"
    if ratio < threshold:
        failed[WalkForwardVerdict.OVERFIT] = f"efficiency {ratio:.2f} is below {threshold:g}"
    enough = 1 - (1 - SIGNIFICANT) / n_strategies
    if not psr >= enough:
        failed[WalkForwardVerdict.INSIGNIFICANT] = (
            f"the out-of-sample run is above zero with a probability of {psr:.2f}, not {enough:.2f}"
            if psr >= 0
            else "the out-of-sample run has no Sharpe ratio"
        )
    verdict = next(iter(failed), WalkForwardVerdict.PASSED)
    return Efficiency(trained, tested, n, ratio, verdict, "; ".join(failed.values()))
