from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis, skew

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.trials import (
    _silhouettes,
    cluster_trials,
    effective_number_of_trials,
    family_significance,
    trials_variance,
)
from backtest_pipeline.simulation.significance import (
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
)


def families(
    n_obs: int, n_families: int, size: int, correlation: float, seed: int = 0
) -> np.ndarray:
    """Returns of families of trials, correlated within and independent between them."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=(n_obs, n_families)), size, axis=1)
    own = rng.normal(size=(n_obs, n_families * size))
    return 0.01 * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)


@pytest.mark.parametrize("correlation", [0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("n_families", [1, 2, 5, 12])
def test_planted_families_are_found(n_families: int, correlation: float) -> None:
    returns = families(800, n_families, 8, correlation)
    np.testing.assert_array_equal(cluster_trials(returns), np.repeat(np.arange(n_families), 8))
    wanted = n_families * (correlation + (1 - correlation) * 8)
    assert effective_number_of_trials(returns) == pytest.approx(wanted, rel=0.1)


def test_families_of_families_are_told_apart() -> None:
    # Three groups at 0.95 within and 0.5 between: long-only strategies of one asset are like that.
    market = families(800, 1, 24, 0.999, seed=1)
    returns = market + families(800, 3, 8, 0.95, seed=2)
    np.testing.assert_array_equal(cluster_trials(returns), np.repeat([0, 1, 2], 8))


def test_copies_count_once() -> None:
    returns = np.repeat(families(300, 1, 1, 0.0), 9, axis=1)
    assert effective_number_of_trials(returns) == pytest.approx(1.0)
    four = np.repeat(families(300, 4, 1, 0.0), 9, axis=1)
    assert effective_number_of_trials(four) == pytest.approx(4.0)


def test_strangers_count_nearly_in_full() -> None:
    assert 90 < effective_number_of_trials(families(1000, 100, 1, 0.0)) <= 100


def test_a_mirror_image_is_another_trial() -> None:
    returns = families(300, 1, 1, 0.0)
    assert effective_number_of_trials(np.hstack([returns, -returns])) == 2.0


def test_a_trial_that_never_trades_is_a_trial_of_its_own() -> None:
    returns = families(300, 1, 5, 0.999)
    idle = np.hstack([returns, np.zeros((300, 2)), np.full((300, 1), 0.1)])
    np.testing.assert_array_equal(cluster_trials(idle), [0, 0, 0, 0, 0, 1, 2, 3])
    count = effective_number_of_trials(returns)
    assert effective_number_of_trials(idle) == pytest.approx(count + 3)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    n_families=st.integers(1, 4),
    size=st.integers(1, 5),
    correlation=st.floats(0, 1),
)
def test_the_count_is_sound_and_the_order_of_the_trials_plays_no_part(
    seed: int, n_families: int, size: int, correlation: float
) -> None:
    returns = families(120, n_families, size, correlation, seed)
    order = np.random.default_rng(seed).permutation(returns.shape[1])
    there, back = cluster_trials(returns), cluster_trials(returns[:, order])
    together = there[:, None] == there
    np.testing.assert_array_equal(together[np.ix_(order, order)], back[:, None] == back)
    _, first = np.unique(there, return_index=True)
    assert (np.diff(first) > 0).all()
    count = effective_number_of_trials(returns)
    assert 1 - 1e-9 <= count <= returns.shape[1] + 1e-9
    assert effective_number_of_trials(returns[:, order]) == pytest.approx(count)


def test_silhouettes_by_hand() -> None:
    # Points on a line; the pair (0, 0.1) and the pair (0.5, 0.7) of sqrt(0.5) = 0.707 at most.
    at = np.array([0.0, 0.1, 0.5, 0.7, 9.0])
    distance = np.abs(at[:, None] - at)
    found = _silhouettes(distance, np.array([0, 0, 1, 1, 2]))
    wanted = [0.5 / 0.6, 0.4 / 0.5, 0.25 / 0.45, 0.45 / 0.65, 0.0]
    np.testing.assert_allclose(found, wanted)
    alone = _silhouettes(distance[:2, :2], np.array([0, 0]))
    np.testing.assert_allclose(alone, 1 - 0.1 / math.sqrt(0.5))


def test_the_variance_is_that_of_the_sharpe_ratios_that_are_defined() -> None:
    assert trials_variance(np.array([0.1, np.nan, 0.3, 0.2])) == pytest.approx(0.01)
    assert trials_variance(np.array([0.1, np.nan])) == 0.0


def test_a_family_is_deflated_by_both_counts() -> None:
    returns = np.hstack([families(500, 4, 10, 0.9), np.zeros((500, 1))])
    returns[:, 23] += 0.002
    found = family_significance(returns)
    chosen = returns[:, 23]
    sharpes = returns[:, :-1].mean(axis=0) / returns[:, :-1].std(axis=0, ddof=1)
    measured = (
        float(chosen.mean() / chosen.std(ddof=1)),
        500,
        float(skew(chosen)),
        float(kurtosis(chosen, fisher=False)),
    )
    assert (found.best, found.n_trials) == (23, 41)
    assert found.n_effective == effective_number_of_trials(returns)
    assert found.sharpe == pytest.approx(measured[0])
    assert found.trials_variance == pytest.approx(sharpes.var(ddof=1))
    assert found.psr == pytest.approx(probabilistic_sharpe_ratio(*measured))
    variance = float(sharpes.var(ddof=1))
    assert found.dsr == pytest.approx(deflated_sharpe_ratio(*measured, variance, 41))
    effective = deflated_sharpe_ratio(*measured, variance, found.n_effective)
    assert found.dsr_effective == pytest.approx(effective)
    assert found.dsr < found.dsr_effective < found.psr


def test_a_single_trial_is_not_deflated() -> None:
    found = family_significance(families(300, 1, 1, 0.0))
    assert found.n_trials == found.n_effective == 1
    assert found.psr == found.dsr == found.dsr_effective


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.zeros((1, 3)), r"shape \(1, 3\)"),
        (np.zeros((5, 0)), r"shape \(5, 0\)"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.array([[0.1, np.nan], [0.2, 0.1]]), r"trials \[1\] are not finite"),
    ],
)
def test_what_cannot_be_clustered_is_refused(returns: np.ndarray, message: str) -> None:
    for function in (cluster_trials, effective_number_of_trials, family_significance):
        with pytest.raises(InvalidInput, match=message):
            function(returns)


def test_a_family_in_which_nothing_ever_traded_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no trial has returns that vary"):
        family_significance(np.zeros((100, 3)))


def test_of_a_thousand_searches_over_random_walks_at_most_one_in_twenty_is_significant() -> None:
    rng = np.random.default_rng(2026)
    naive, deflated, effective = [], [], []
    for _ in range(1000):
        market = rng.normal(0, 0.02, size=(365, 1))
        positions = rng.integers(-1, 2, size=(365, 20))
        found = family_significance(positions * market)
        naive.append(found.psr > 0.95)
        deflated.append(found.dsr > 0.95)
        effective.append(found.dsr_effective > 0.95)
    assert np.mean(deflated) <= 0.05
    assert np.mean(effective) <= 0.05
    # Looking at the best of twenty as if it had been the only one finds something in most walks.
    assert np.mean(naive) > 0.5


@pytest.mark.parametrize(("n_families", "size", "correlation"), [(1, 20, 0.9), (5, 6, 0.8)])
def test_the_deflated_ratio_holds_for_correlated_trials_too(
    n_families: int, size: int, correlation: float
) -> None:
    found = [
        family_significance(families(500, n_families, size, correlation, seed))
        for seed in range(200)
    ]
    assert np.mean([family.dsr > 0.95 for family in found]) <= 0.05
    assert np.mean([family.dsr_effective > 0.95 for family in found]) <= 0.11
    assert np.mean([family.psr > 0.95 for family in found]) > 0.11
