from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.ranking.trials import (
    Deflated,
    Family,
    _clusters,
    _correlations,
    _mean_silhouettes,
    deflate,
    effective_number_of_trials,
    family_of,
)
from backtest_pipeline.simulation.metrics.significance import (
    SharpeMoments,
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
    sharpe_moments,
)


def families(
    n_obs: int, n_families: int, size: int, correlation: float, seed: int = 0
) -> np.ndarray:
    """Returns of families of trials, correlated within and independent between them."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=(n_obs, n_families)), size, axis=1)
    own = rng.normal(size=(n_obs, n_families * size))
    return 0.01 * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)


def cluster_trials(returns: np.ndarray) -> np.ndarray:
    return _clusters(_correlations(returns))


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
    # The pairs are formed first, then they are joined, and the far point at last.
    found = _mean_silhouettes(distance, np.array([[0, 1], [2, 3], [5, 6], [4, 7]]))
    of_the_pairs = [0.5 / 0.6, 0.4 / 0.5, 0.25 / 0.45, 0.45 / 0.65, 0.0]
    assert found[2] == pytest.approx(np.mean(of_the_pairs))
    assert found[3] == pytest.approx(np.mean([0.4 / 0.5, 0.3 / 0.4, 0, 0, 0]))
    assert found[4] == 0
    alone = _mean_silhouettes(distance[:2, :2].copy(), np.array([[0, 1]]))
    np.testing.assert_allclose(alone, [1 - 0.1 / math.sqrt(0.5), 0])


def test_each_run_is_deflated_by_its_own_family() -> None:
    moments = SharpeMoments(
        sharpe=np.array([0.09, 0.08, np.nan]),
        skew=np.array([-0.4, 0.0, np.nan]),
        kurtosis=np.array([7.0, 3.0, np.nan]),
        n_obs=np.array([1250, 400, 1]),
    )
    found = deflate(moments, [Family(41, 5.5), Family(1, 1.0), Family(3, 2.0)])
    one = (0.09, 1250, -0.4, 7.0)
    assert found.psr[0] == probabilistic_sharpe_ratio(*one)
    assert found.dsr[0] == pytest.approx(deflated_sharpe_ratio(*one, 1 / 1249, 41))
    assert found.dsr_effective[0] == pytest.approx(deflated_sharpe_ratio(*one, 1 / 1249, 5.5))
    assert found.dsr[0] < found.dsr_effective[0] < found.psr[0]
    assert found.dsr[1] == found.dsr_effective[1] == found.psr[1]  # a trial alone
    assert np.isnan([found.psr[2], found.dsr[2], found.dsr_effective[2]]).all()


def test_a_family_counts_the_trials_that_are_left_out_of_the_sample() -> None:
    sample = families(300, 4, 5, 0.999)
    assert family_of(20, sample) == Family(20, effective_number_of_trials(sample))
    assert family_of(2000, sample).n_effective == pytest.approx(6, rel=0.1)  # 4 (c + 500 (1 - c))
    assert family_of(1, sample[:, :1]) == Family(1, 1.0)
    assert family_of(2, np.repeat(sample[:, :1], 2, axis=1)).n_effective == 1.0
    assert family_of(7, sample[:1]) == Family(7, 7.0)  # too short to tell what is of one kind


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 30),
    more=st.integers(1, 300),
    likeness=st.floats(0, 1),
    drift=st.floats(-0.01, 0.01),
)
def test_another_trial_never_makes_a_run_better(
    seed: int, n: int, more: int, likeness: float, drift: float
) -> None:
    rng = np.random.default_rng(seed)
    before = 0.01 * rng.normal(size=(80, n)) + rng.normal(0, 0.005, n)
    copies = math.sqrt(likeness) * before[:, rng.integers(0, n, more)]
    after = np.hstack(
        [before, copies + 0.01 * math.sqrt(1 - likeness) * rng.normal(size=(80, more)) + drift]
    )
    run = sharpe_moments(before)
    few, many = (deflate(run, [family_of(tried.shape[1], tried)] * n) for tried in (before, after))
    assert np.all(many.dsr <= few.dsr)
    assert np.array_equal(many.psr, few.psr)


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
    with pytest.raises(InvalidInput, match=message):
        effective_number_of_trials(returns)


def worth_of_the_best(returns: np.ndarray, n_effective: float | None = None) -> Deflated:
    best = int(np.argmax(returns.mean(axis=0) / returns.std(axis=0)))
    n_trials = returns.shape[1]
    chosen = sharpe_moments(returns[:, [best]].astype(float))
    return deflate(chosen, [Family(n_trials, n_effective or float(n_trials))])


def near_copies(n_kinds: int, n_copies: int, seed: int) -> np.ndarray:
    """Trials without an edge, and a fine grid around them: copies with a correlation of 0.99."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((250, n_kinds), np.float32)
    noise = rng.standard_normal((250, n_copies), np.float32)
    copies = 0.99 * kinds[:, rng.integers(0, n_kinds, n_copies)] + math.sqrt(1 - 0.99**2) * noise
    return np.hstack([kinds, copies])


@pytest.mark.parametrize(
    ("n_kinds", "n_copies"), [(1, 0), (2, 0), (20, 0), (20, 50), (20, 200), (1, 200)]
)
def test_of_a_thousand_searches_among_near_copies_at_most_one_in_twenty_is_significant(
    n_kinds: int, n_copies: int
) -> None:
    found = [worth_of_the_best(near_copies(n_kinds, n_copies, seed)) for seed in range(1000)]
    # One trial alone is right once in twenty by definition: 5 %, give or take what 1,000 draws do.
    most = 0.05 if n_kinds + n_copies > 1 else 0.065
    assert np.mean([one.dsr[0] >= 0.95 for one in found]) <= most


def test_of_a_thousand_searches_over_random_walks_at_most_one_in_twenty_is_significant() -> None:
    rng = np.random.default_rng(2026)
    naive, deflated, effective = [], [], []
    for _ in range(1000):
        market = rng.normal(0, 0.02, size=(365, 1))
        returns = rng.integers(-1, 2, size=(365, 20)) * market
        found = worth_of_the_best(returns, effective_number_of_trials(returns))
        naive.append(found.psr[0] > 0.95)
        deflated.append(found.dsr[0] > 0.95)
        effective.append(found.dsr_effective[0] > 0.95)
    assert np.mean(deflated) <= 0.05
    assert np.mean(effective) <= 0.05
    # Looking at the best of twenty as if it had been the only one finds something in most walks.
    assert np.mean(naive) > 0.5


@pytest.mark.parametrize(
    ("n_families", "size", "correlation"), [(1, 20, 0.6), (1, 20, 0.9), (5, 6, 0.8)]
)
def test_the_deflated_ratio_holds_for_correlated_trials_too(
    n_families: int, size: int, correlation: float
) -> None:
    found = []
    for seed in range(300):
        returns = families(250, n_families, size, correlation, seed)
        found.append(worth_of_the_best(returns, effective_number_of_trials(returns)))
    assert np.mean([one.dsr[0] > 0.95 for one in found]) <= 0.05
    assert np.mean([one.dsr_effective[0] > 0.95 for one in found]) <= 0.05
    assert np.mean([one.psr[0] > 0.95 for one in found]) > 0.11
