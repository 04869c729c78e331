"""What the best of a sweep is worth, whether its returns are seen at once or block by block."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.research.ranking.trials import effective_number_of_trials
from backtest_pipeline.research.validation.overfitting import (
    cross_validate_choice,
    probability_of_backtest_overfitting,
)
from backtest_pipeline.research.validation.selection import Selection, Tried, clustered, selection


def returns_of(n_days: int, n: int, seed: int = 3) -> np.ndarray:
    """Correlated strategies, some of them copies and some that never trade."""
    rng = np.random.default_rng(seed)
    returns = rng.normal(0.0003, 0.02, (n_days, 1)) + rng.normal(0, 0.01, (n_days, n))
    returns[:, n // 2] = returns[:, 0]
    returns[:, n // 3] = 0.0
    return returns


def in_parts(returns: np.ndarray, best: int, width: int, risk_free: float) -> Selection:
    n = returns.shape[1]
    drawn = clustered(n)
    parts = []
    for first in range(0, n, width):
        part = returns[:, first : first + width]
        inside = drawn[(first <= drawn) & (drawn < first + width)]
        here = best - first if first <= best < first + width else 0
        parts.append(Tried.of(part, np.sort(inside) - first, here, risk_free))
    whole = Tried.join(parts, best // width, drawn)
    return selection(whole, n, risk_free=risk_free)


@pytest.mark.parametrize("n", [40, 700])
@pytest.mark.parametrize("risk_free", [0.0, 0.0002])
def test_blocks_of_a_sweep_come_to_what_all_of_it_does(n: int, risk_free: float) -> None:
    returns = returns_of(400, n)
    best = int(np.argmax(returns.mean(axis=0) / (returns.std(axis=0) + 1e-9)))
    found = in_parts(returns, best, 37, risk_free)
    assert found == in_parts(returns, best, n, risk_free)
    assert found.n_trials == n
    assert found.n_trials_effective == effective_number_of_trials(returns)
    excess = returns - risk_free
    varying = excess[:, excess.std(axis=0) > 1e-14]
    assert found.pbo == probability_of_backtest_overfitting(varying)


def test_too_few_days_or_too_few_that_vary_are_told() -> None:
    short = in_parts(returns_of(20, 10), 1, 4, 0.0)
    assert np.isnan(short.pbo)
    assert short.undefined["pbo"] == "20 daily returns are too few for 16 blocks of two at least"
    one = np.zeros((100, 3))
    one[:, 1] = returns_of(100, 3)[:, 2]
    assert "two combinations" in in_parts(one, 1, 2, 0.0).undefined["pbo"]


def test_copies_of_a_strategy_share_its_rank() -> None:
    one, other = returns_of(160, 2, 5)[:, 1:], returns_of(160, 2, 6)[:, 1:]
    once = cross_validate_choice(np.concatenate([one, other], axis=1))
    copied = cross_validate_choice(np.repeat(np.concatenate([one, other], axis=1), 50, axis=1))
    np.testing.assert_allclose(copied.out_of_sample, once.out_of_sample, atol=1e-12)
    # Of two, the rank is 1 or 2 of 3; of fifty copies each, in the middle of 1..50 or 51..100.
    ranks = 101 / (1 + np.exp(-copied.logits))
    np.testing.assert_allclose(ranks, np.where(once.logits < 0, 25.5, 75.5))


def test_a_large_sweep_is_held_as_sixteen_numbers_twice_for_each_combination() -> None:
    rng = np.random.default_rng(1)
    parts = [Tried.of(rng.normal(0, 0.01, (5000, 25)), [0], 0, 0.0) for _ in range(40)]
    whole = Tried.join(parts, 0, np.arange(40))
    assert whole.sums is not None
    assert whole.sums.totals.nbytes == whole.sums.squares.nbytes == 16 * 8 * 1000
    assert all(part.best.base is None for part in parts)  # a view would hold all returns
    assert 0.0 < selection(whole, 1000).pbo < 1.0
