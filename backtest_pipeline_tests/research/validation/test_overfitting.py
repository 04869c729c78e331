from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.validation.overfitting import (
    cross_validate_choice,
    probability_of_backtest_overfitting,
)


def noise(n_obs: int, n_strategies: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_obs, n_strategies)) * 0.01


def sharpe(returns: list[float]) -> float:
    mean = math.fsum(returns) / len(returns)
    variance = math.fsum((r - mean) ** 2 for r in returns) / (len(returns) - 1)
    return mean / math.sqrt(variance) if variance > 0 else 0.0


def logits_by_hand(returns: np.ndarray, n_blocks: int) -> list[float]:
    """The cross-validation as the paper tells it, one combination after the other."""
    n_strategies = returns.shape[1]
    blocks = [block.tolist() for block in np.array_split(returns, n_blocks)]
    logits = []
    for chosen in combinations(range(n_blocks), n_blocks // 2):
        inside = [row for b in chosen for row in blocks[b]]
        outside = [row for b in range(n_blocks) if b not in chosen for row in blocks[b]]
        sharpe_in = [sharpe([row[i] for row in inside]) for i in range(n_strategies)]
        sharpe_out = [sharpe([row[i] for row in outside]) for i in range(n_strategies)]
        best = sharpe_in.index(max(sharpe_in))
        rank = sorted(sharpe_out).index(sharpe_out[best]) + 1
        omega = rank / (n_strategies + 1)
        logits.append(math.log(omega / (1 - omega)))
    return logits


@pytest.mark.parametrize(("n_obs", "n_blocks"), [(60, 6), (64, 8), (40, 2)])
def test_the_reference_finds_the_same_logits(n_obs: int, n_blocks: int) -> None:
    for seed in range(5):
        returns = noise(n_obs, 7, seed)
        found = cross_validate_choice(returns, n_blocks)
        wanted = logits_by_hand(returns, n_blocks)
        np.testing.assert_allclose(found.logits, wanted, atol=1e-12)
        assert found.probability_of_overfitting == np.mean(np.array(wanted) <= 0)


def test_sixteen_blocks_are_12870_combinations() -> None:
    assert len(cross_validate_choice(noise(320, 3, 0)).logits) == 12_870


def test_rows_that_cannot_be_divided_evenly_all_count() -> None:
    returns = noise(67, 2, 1)
    found = cross_validate_choice(returns, 2)
    best = [max(sharpe(column) for column in half.T.tolist()) for half in np.split(returns, [33])]
    np.testing.assert_allclose(found.in_sample, best)


def test_choosing_among_noise_is_overfitting_half_of_the_time() -> None:
    found = [probability_of_backtest_overfitting(noise(480, 20, s), 10) for s in range(200)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.04)


def test_a_strategy_that_truly_leads_is_no_overfitting() -> None:
    returns = noise(480, 50, 5)
    returns[:, 17] += 0.005
    found = cross_validate_choice(returns)
    assert found.probability_of_overfitting < 0.001
    assert found.probability_of_loss < 0.001


def test_what_must_lose_later_what_it_won_is_overfitting_for_sure() -> None:
    # Over all blocks together each strategy earns nothing, so that a gain here is a loss there.
    returns = noise(320, 40, 7)
    returns -= returns.mean(axis=0)
    found = cross_validate_choice(returns)
    assert found.probability_of_overfitting > 0.95
    assert found.probability_of_loss > 0.95
    assert found.degradation_slope < -0.5


def test_the_slope_is_that_of_a_least_squares_line() -> None:
    found = cross_validate_choice(noise(120, 6, 8), 6)
    slope, _ = np.polyfit(found.in_sample, found.out_of_sample, 1)
    assert found.degradation_slope == pytest.approx(slope)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), n_strategies=st.integers(2, 8), copies=st.integers(0, 4))
def test_the_order_of_the_columns_plays_no_part(seed: int, n_strategies: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    returns = noise(48, n_strategies, seed)
    # Copies and strategies that rest for long bring ties about.
    returns = np.hstack([returns, returns[:, rng.integers(n_strategies, size=copies)]])
    returns[:32, 0] = 0.0
    there = cross_validate_choice(returns, 6)
    back = cross_validate_choice(returns[:, rng.permutation(returns.shape[1])], 6)
    np.testing.assert_array_equal(there.logits, back.logits)
    np.testing.assert_array_equal(there.in_sample, back.in_sample)
    np.testing.assert_allclose(there.out_of_sample, back.out_of_sample, atol=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), scale=st.floats(1e-6, 1e3))
def test_the_unit_of_the_returns_plays_no_part(seed: int, scale: float) -> None:
    returns = noise(48, 5, seed)
    one, other = (cross_validate_choice(r, 6).logits for r in (returns, returns * scale))
    np.testing.assert_array_equal(one, other)


def test_equal_strategies_are_all_in_the_middle() -> None:
    returns = np.repeat(noise(64, 1, 2), 5, axis=1)
    assert (cross_validate_choice(returns, 8).logits == 0).all()
    assert probability_of_backtest_overfitting(returns, 8) == 1.0


def test_a_strategy_that_rests_for_a_half_has_a_sharpe_ratio_of_zero_there() -> None:
    returns = np.abs(noise(64, 2, 4)) * [-1, 1]
    returns[:32, 1] = 0.0
    found = cross_validate_choice(returns, 2)
    # The first half: resting beats losing. The second: winning beats losing, then it had rested.
    assert found.in_sample[0] == found.out_of_sample[1] == 0.0
    assert found.probability_of_overfitting == 0.0


def test_columns_of_a_frame_are_strategies() -> None:
    returns = noise(96, 4, 9)
    frame = pd.DataFrame(returns, columns=["a", "b", "c", "d"])
    assert probability_of_backtest_overfitting(frame, 8) == probability_of_backtest_overfitting(
        returns, 8
    )
    frame.loc[3, "c"] = np.nan
    with pytest.raises(InvalidInput, match=r"\['c'\] are not finite"):
        probability_of_backtest_overfitting(frame, 8)


@pytest.mark.parametrize(
    ("returns", "n_blocks", "message"),
    [
        (noise(96, 4, 0), 7, "even number from 2 to 24, not 7"),
        (noise(96, 4, 0), 0, "not 0"),
        (noise(96, 4, 0), 26, "not 26"),
        (noise(96, 4, 0), -4, "not -4"),
        (noise(12, 4, 0), 16, "12 rows are too few for 16 blocks"),
        (noise(96, 1, 0), 16, "two strategies"),
        (noise(96, 1, 0)[:, 0], 16, r"shape \(96,\)"),
        (np.hstack([noise(96, 3, 0), np.zeros((96, 1))]), 16, r"\[3\] never vary"),
        (np.hstack([noise(96, 3, 0), np.full((96, 1), np.inf)]), 16, r"\[3\] are not finite"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused(
    returns: np.ndarray, n_blocks: int, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        probability_of_backtest_overfitting(returns, n_blocks)
