from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.metrics.significance import (
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_moments,
)

NAN = math.nan


def fat_tailed(n_obs: int, n_strategies: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_t(4, size=(n_obs, n_strategies)) * 0.01 + 0.0005


def test_the_deflated_sharpe_ratio_of_the_paper() -> None:
    variance = 0.5 / 250
    assert expected_maximum_sharpe(1.0, 100) == pytest.approx(2.5306028932, abs=1e-10)
    assert expected_maximum_sharpe(variance, 100) == pytest.approx(0.1131720019, abs=1e-10)
    found = deflated_sharpe_ratio(2.5 / math.sqrt(250), 1250, -3, 10, variance, 100)
    assert found == pytest.approx(0.90039683444939, abs=1e-13)


def test_the_hedge_fund_of_the_paper() -> None:
    found = probabilistic_sharpe_ratio(1.585 / math.sqrt(12), 24, -2.448, 10.164)
    assert found == pytest.approx(0.913234307, abs=5e-10)


def test_skfolio_finds_the_same_for_the_same_returns() -> None:
    from scipy.stats import kurtosis, skew
    from skfolio import measures

    returns = fat_tailed(700, 300, seed=1)
    of = sharpe_moments(returns)
    np.testing.assert_allclose(of.skew, skew(returns), rtol=1e-12)
    np.testing.assert_allclose(of.kurtosis, kurtosis(returns, fisher=False), rtol=1e-12)
    np.testing.assert_allclose(
        probabilistic_sharpe_ratio(of.sharpe, of.n_obs, of.skew, of.kurtosis, 0.03),
        measures.probabilistic_sharpe_ratio(returns, benchmark_sharpe_ratio=0.03),
        rtol=0,
        atol=1e-12,
    )
    variance = float(of.sharpe.var(ddof=1))
    np.testing.assert_allclose(
        deflated_sharpe_ratio(of.sharpe, of.n_obs, of.skew, of.kurtosis, variance, 300),
        measures.deflated_sharpe_ratio(returns, of.sharpe),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("n_trials", [1, 1.5, 2, 7.3, 20, 1000, 100_000])
def test_skfolio_expects_the_same_maximum(n_trials: float) -> None:
    from skfolio import measures

    theirs = measures.expected_max_sharpe_ratio(n_trials, 0.05)
    assert expected_maximum_sharpe(0.05**2, n_trials) == pytest.approx(theirs, abs=1e-12)


def test_the_expected_maximum_is_that_of_simulated_normals() -> None:
    best = np.random.default_rng(0).normal(size=(20_000, 50)).max(axis=1)
    # Of 50 normals the formula, an approximation, expects 1.2 % too much.
    assert expected_maximum_sharpe(1.0, 50) == pytest.approx(best.mean(), rel=0.02)


def test_more_trials_never_flatter() -> None:
    from scipy.stats import norm

    trials = np.array([1, 1.01, 1.1, 1.3, 1.5, 2, 3, 10, 1e3, 1e6, 1e12])
    bars = expected_maximum_sharpe(np.ones(len(trials)), trials)
    assert (np.diff(bars) >= 0).all()
    assert bars[0] == 0
    assert bars[-1] == pytest.approx(norm.isf(1e-12), rel=0.02)


@given(
    sharpe=st.floats(0.001, 0.5),
    skew=st.floats(-2, 2),
    tail=st.floats(0, 10),
    benchmark=st.floats(-0.5, 0.0),
)
def test_after_the_minimum_track_record_the_confidence_is_reached(
    sharpe: float, skew: float, tail: float, benchmark: float
) -> None:
    kurtosis = 1 + skew**2 + tail
    length = minimum_track_record_length(sharpe, skew, kurtosis, benchmark, confidence=0.9)
    if length >= 2:
        reached = probabilistic_sharpe_ratio(sharpe, length, skew, kurtosis, benchmark)
        assert reached == pytest.approx(0.9, abs=1e-9)


def test_no_track_record_is_long_enough_for_a_loser() -> None:
    assert math.isnan(minimum_track_record_length(-0.1, 0.0, 3.0))
    assert math.isnan(minimum_track_record_length(0.1, 0.0, 3.0, benchmark_sharpe=0.1))


def test_what_is_undefined_in_an_array_stays_undefined_and_its_neighbours_are_answered() -> None:
    sharpe = np.array([0.1, NAN, 0.1, 0.1])
    found = probabilistic_sharpe_ratio(
        sharpe, np.array([100, 100, 1, 100]), 0.0, np.array([3, 3, 3, NAN])
    )
    np.testing.assert_array_equal(np.isnan(found), [False, True, True, True])
    assert found[0] == probabilistic_sharpe_ratio(0.1, 100, 0.0, 3.0)
    deflated = deflated_sharpe_ratio(sharpe, 100, 0.0, 3.0, 0.01, np.array([5, 5, NAN, 1]))
    np.testing.assert_array_equal(np.isnan(deflated), [False, True, True, False])
    assert deflated[3] == found[0]
    assert np.isnan(minimum_track_record_length(sharpe, 0.0, 3.0)).tolist() == [0, 1, 0, 0]


def test_two_valued_returns_with_the_one_sharpe_ratio_without_error_are_undefined() -> None:
    # skew 2 and kurtosis 5 at a Sharpe ratio of 1: its estimate has no variance.
    assert math.isnan(probabilistic_sharpe_ratio(1.0, 100, 2.0, 5.0))


def test_returns_that_do_not_vary_have_no_sharpe_ratio() -> None:
    returns = np.column_stack([np.full(50, 0.1), np.zeros(50), fat_tailed(50, 1, seed=3)])
    of = sharpe_moments(returns)
    assert np.isnan(of.sharpe).tolist() == [True, True, False]
    assert np.isnan(of.skew).tolist() == np.isnan(of.kurtosis).tolist() == [True, True, False]
    assert np.isnan(sharpe_moments(returns[:1]).sharpe).all()


GOOD: dict[str, Any] = {"sharpe": 0.1, "n_obs": 100, "skew": 0.0, "kurtosis": 3.0}
TRIALS: dict[str, Any] = {"trials_variance": 0.01, "n_trials": 10}


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (probabilistic_sharpe_ratio, GOOD | {"sharpe": NAN}, "sharpe is NaN"),
        (probabilistic_sharpe_ratio, GOOD | {"sharpe": math.inf}, "sharpe is infinite"),
        (probabilistic_sharpe_ratio, GOOD | {"sharpe": np.array([1, -math.inf])}, "infinite"),
        (probabilistic_sharpe_ratio, GOOD | {"n_obs": 1}, "n_obs is 1.*two returns"),
        (probabilistic_sharpe_ratio, GOOD | {"n_obs": NAN}, "n_obs is NaN"),
        (probabilistic_sharpe_ratio, GOOD | {"kurtosis": 0.0}, "kurtosis is 0.0.*Pearson"),
        (probabilistic_sharpe_ratio, GOOD | {"kurtosis": np.array([3, -1.2])}, "kurtosis is -1.2"),
        (
            probabilistic_sharpe_ratio,
            GOOD | {"sharpe": np.zeros(3), "skew": np.zeros(2)},
            r"cannot be broadcast together: sharpe \(3,\).* skew \(2,\)",
        ),
        (deflated_sharpe_ratio, GOOD | TRIALS | {"trials_variance": -1e-9}, "trials_variance is"),
        (deflated_sharpe_ratio, GOOD | TRIALS | {"n_trials": 0}, "n_trials is 0"),
        (deflated_sharpe_ratio, GOOD | TRIALS | {"n_trials": NAN}, "n_trials is NaN"),
        (deflated_sharpe_ratio, GOOD | TRIALS | {"n_obs": 1}, "n_obs is 1"),
        (expected_maximum_sharpe, TRIALS | {"n_trials": 0.5}, "n_trials is 0.5"),
        (expected_maximum_sharpe, TRIALS | {"trials_variance": NAN}, "trials_variance is NaN"),
        (
            minimum_track_record_length,
            {"sharpe": 0.1, "skew": 0.0, "kurtosis": 3.0, "confidence": 95},
            "confidence",
        ),
        (
            minimum_track_record_length,
            {"sharpe": 0.1, "skew": NAN, "kurtosis": 3.0},
            "skew is NaN",
        ),
    ],
)
def test_what_no_data_can_have_is_refused_by_name(
    function: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        function(**arguments)
