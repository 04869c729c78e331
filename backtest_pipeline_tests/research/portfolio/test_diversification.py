from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.research.portfolio.diversification import (
    LEAST_COMMON,
    contributions,
    correlations,
    diversification,
)
from backtest_pipeline.research.portfolio.portfolio import PortfolioRules, form_portfolio
from backtest_pipeline.research.portfolio.weights import SCHEMES
from backtest_pipeline_tests.research.portfolio.curves import markets

NAN = np.nan


def days(n_days: int) -> np.ndarray:
    return 1_700_000_000_000_000 + np.arange(n_days) * 86_400_000_000


@given(markets())
def test_correlations_are_those_of_pandas_over_common_returns(
    market: tuple[np.ndarray, np.ndarray],
) -> None:
    curves, _ = market
    found = correlations(curves)
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = pd.DataFrame((curves[:, 1:] / curves[:, :-1] - 1).T).replace(np.inf, NAN)
    expected = returns.corr(min_periods=LEAST_COMMON).to_numpy()
    np.testing.assert_allclose(found.matrix, expected, atol=1e-9)
    seen = returns.notna().to_numpy().astype(int)
    np.testing.assert_array_equal(found.common, seen.T @ seen)


def test_pairs_that_hardly_met_have_no_correlation() -> None:
    rng = np.random.default_rng(7)
    curves = np.exp(np.cumsum(rng.normal(0, 0.02, (3, 100)), axis=1))
    curves[2, :80] = NAN
    found = correlations(curves)
    assert np.isnan(found.matrix[0, 2])
    assert found.common[0, 2] == 19
    assert found.mean_pairwise == found.matrix[0, 1]


def test_a_curve_that_stands_still_has_no_correlation() -> None:
    curves = np.ones((2, 100))
    curves[1] = np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.02, 100)))
    assert np.isnan(correlations(curves).mean_pairwise)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(markets(), st.sampled_from([1.0, 0.3]))
def test_contributions_add_up_to_the_return_before_costs(
    scheme: str, market: tuple[np.ndarray, np.ndarray], cap: float
) -> None:
    rules = PortfolioRules(scheme, "weekly", 20, cap)
    portfolio = form_portfolio(*market, 1000.0, 0.0, rules)
    added = contributions(market[0], portfolio)
    equity = portfolio.equity[portfolio.start :]
    gained, before = np.diff(equity), equity[:-1]
    expected = np.divide(gained, before, out=np.zeros_like(gained), where=before > 0)
    np.testing.assert_allclose(added.sum(axis=0), expected, atol=1e-12)


@given(markets())
def test_risk_contributions_add_up_to_the_variance(market: tuple[np.ndarray, np.ndarray]) -> None:
    added = contributions(market[0], form_portfolio(*market, 1000.0, 0.002))
    found = diversification(added)
    if np.isnan(found.variance):
        assert added.shape[1] < 2
        return
    assert found.variance == pytest.approx(added.sum(axis=0).var(ddof=1))
    assert found.risk_contributions.sum() == pytest.approx(found.variance)
    assert found.ratio >= 1 - 1e-9


def test_two_uncorrelated_members_by_hand() -> None:
    # What they add has variances 1 and 4, in units of 4/3 (ddof 1), and no covariance.
    found = diversification(np.array([[1.0, 1, -1, -1], [2, -2, 2, -2]]))
    np.testing.assert_allclose(found.risk_contributions, [4 / 3, 16 / 3])
    assert found.variance == pytest.approx(20 / 3)
    assert found.ratio == pytest.approx(3 / np.sqrt(5))
    assert found.effective_bets == pytest.approx(9 / 5)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_correlation_takes_bets_away(n: int, correlation: float) -> None:
    # Columns of Q are orthogonal to a constant and to each other: their mix has this correlation.
    basis = np.linalg.qr(np.column_stack([np.ones(n + 1), np.eye(n + 1)[:, :n]]))[0][:, 1:].T
    root = np.linalg.cholesky(np.full((n, n), correlation) + (1 - correlation) * np.eye(n))
    found = diversification(root @ basis)
    assert found.effective_bets == pytest.approx(n / (1 + (n - 1) * correlation))


def test_twins_are_one_bet() -> None:
    added = np.tile(np.random.default_rng(7).normal(size=100), (4, 1))
    found = diversification(added)
    assert found.effective_bets == pytest.approx(1.0)
    assert found.ratio == pytest.approx(1.0)


def test_what_does_not_vary_has_no_figures() -> None:
    for added in (np.zeros((3, 50)), np.ones((3, 1)), np.full((3, 50), 0.01)):
        found = diversification(added)
        assert np.isnan([found.variance, found.ratio, found.effective_bets]).all()
        assert np.isnan(found.risk_contributions).all()


def test_a_member_without_risk_adds_nothing() -> None:
    random = np.random.default_rng(7).normal(size=(2, 100))
    alone = diversification(random)
    with_cash = diversification(np.vstack([random, np.zeros(100)]))
    assert with_cash.risk_contributions[2] == 0
    assert with_cash.effective_bets == pytest.approx(alone.effective_bets)
    assert with_cash.ratio == pytest.approx(alone.ratio)
