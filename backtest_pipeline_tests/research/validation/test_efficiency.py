"""Verdicts on walk-forwards: what passes, and what is only flagged."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.research.validation.efficiency import (
    WalkForwardVerdict,
    efficiency,
    in_words,
)

PASSED, OVERFIT = WalkForwardVerdict.PASSED, WalkForwardVerdict.OVERFIT
INSIGNIFICANT, UNDEFINED = WalkForwardVerdict.INSIGNIFICANT, WalkForwardVerdict.UNDEFINED


def test_efficiency_is_test_over_train_and_undefined_without_a_training_profit() -> None:
    train = [2.0, 1.0, np.nan, 4.0, 2.0, 1.0, 1.0]
    result = efficiency(train, [1.0, 0.5, 9.0, np.nan, 1.0, 0.5, 0.5], 0.9, 1)
    assert (result.ratio, result.n_folds, result.verdict) == (0.5, 5, OVERFIT)
    two_losses = efficiency([-1.0] * 5, [-2.0] * 5, 0.99, 1)
    assert (two_losses.ratio, two_losses.verdict) == (None, UNDEFINED)
    assert "not above 0" in two_losses.reason
    assert efficiency([0.0], [1.0], 0.99, 1).verdict is UNDEFINED
    assert efficiency([np.nan], [1.0], 0.99, 1).reason.startswith("no fold")
    assert efficiency([], [], np.nan, 1).verdict is UNDEFINED


def test_a_significant_run_passes_and_a_low_efficiency_is_but_a_flag() -> None:
    honest = efficiency([2.0] * 12, [0.8] * 12, 0.96, 1)
    assert (honest.verdict, honest.reason) == (PASSED, "efficiency 0.40 is below 0.6")
    assert in_words(PASSED, honest.reason) == "passed, although efficiency 0.40 is below 0.6"
    assert in_words(OVERFIT, honest.reason) == "overfit: efficiency 0.40 is below 0.6"
    assert in_words(PASSED, None) == "passed"
    assert efficiency([1.0] * 12, [0.8] * 12, 0.96, 1).reason == ""
    strict = efficiency([1.0] * 12, [0.8] * 12, 0.96, 1, threshold=0.9)
    assert (strict.verdict, strict.reason) == (PASSED, "efficiency 0.80 is below 0.9")


def test_few_folds_and_luck_do_not_pass() -> None:
    few = efficiency([1.0] * 28, [0.8] * 4 + [np.nan] * 24, 0.99, 1)
    assert few.verdict is UNDEFINED
    assert few.reason == "4 folds have both Sharpe ratios, at least 5 are needed"
    assert efficiency([1.0] * 28, [0.8] * 5 + [np.nan] * 23, 0.99, 1).verdict is PASSED
    lucky = efficiency([1.0] * 12, [0.8] * 12, 0.9, 1)
    assert lucky.verdict is INSIGNIFICANT
    assert lucky.reason == "probabilistic Sharpe ratio out of sample 0.900, 0.950 needed"
    assert efficiency([1.0] * 12, [0.8] * 12, np.nan, 1).verdict is INSIGNIFICANT
    both = efficiency([1.0] * 12, [0.1] * 12, 0.5, 1)
    assert both.verdict is OVERFIT
    assert both.reason.startswith("efficiency 0.10 is below 0.6; probabilistic")


@pytest.mark.parametrize(("n", "needed"), [(1, 0.95), (5, 0.99), (20, 0.9975)])
def test_each_walk_forward_of_an_asset_is_one_more_chance(n: int, needed: float) -> None:
    assert efficiency([1.0] * 12, [0.8] * 12, needed + 1e-6, n).verdict is PASSED
    short = efficiency([1.0] * 12, [0.8] * 12, needed - 1e-6, n)
    assert short.verdict is INSIGNIFICANT
    assert (f"as one of {n} walk-forwards" in short.reason) == (n > 1)
