"""Weighting schemes by hand, by invariants, and beside skfolio and scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.research.portfolio.weights import (
    CVAR_LEVEL,
    SCHEMES,
    capped,
    hierarchical_risk_parity,
    ledoit_wolf,
    scheme_weights,
)

RISKY = [scheme for scheme in SCHEMES if scheme != "equal_weight"]


def market(n_returns: int, n_assets: int, seed: int = 7) -> np.ndarray:
    """Returns that share a factor, some against it, of volatilities from 0.2 % to 6 %."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.02, (n_returns, 1)) * rng.uniform(-0.3, 1.5, n_assets)
    own = rng.normal(0, 0.03, (n_returns, n_assets)) * rng.uniform(0.1, 2.0, n_assets)
    return shared + own


def cvar(returns: np.ndarray, weights: np.ndarray) -> float:
    """Mean loss of the worst 5 %, the last of them in part: Rockafellar and Uryasev's."""
    losses = np.sort(-returns @ weights)[::-1]
    n = (1 - CVAR_LEVEL) * len(losses)
    whole = int(n)
    return float((losses[:whole].sum() + (n - whole) * losses[whole]) / n)


@st.composite
def windows(draw: st.DrawFn) -> tuple[np.ndarray, float]:
    """Returns, some of them hardly moving or twins of others, and a cap that binds or not."""
    n_assets = draw(st.integers(1, 12))
    returns = market(draw(st.integers(5, 60)), n_assets, draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        returns[:, 0] = returns[:, -1]
    if draw(st.booleans()):
        returns[1:-1, 0] = 0.0
    cap = draw(st.sampled_from([1.0, 0.5, 1.5 / n_assets, 1.01 / n_assets, 1 / n_assets, 0.03]))
    return returns, min(cap, 1.0)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(windows())
def test_weights_are_not_negative_hold_the_cap_and_sum_to_one_less_cash(
    scheme: str, window: tuple[np.ndarray, float]
) -> None:
    returns, cap = window
    weights = scheme_weights(scheme, returns, cap)
    assert weights.min() >= 0.0
    assert weights.max() <= cap * (1 + 1e-9)
    assert weights.sum() == pytest.approx(min(1.0, cap * returns.shape[1]), abs=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(st.integers(0, 2**32), st.integers(2, 12), st.sampled_from([1.0, 0.4]))
def test_the_order_of_assets_is_irrelevant(
    scheme: str, seed: int, n_assets: int, cap: float
) -> None:
    returns = market(40, n_assets, seed)
    order = np.random.default_rng(seed).permutation(n_assets)
    one = scheme_weights(scheme, returns, cap)
    other = scheme_weights(scheme, returns[:, order], cap)
    np.testing.assert_allclose(other, one[order], atol=1e-12)


@given(windows())
def test_no_other_portfolio_has_less_variance(window: tuple[np.ndarray, float]) -> None:
    returns, cap = window
    weights = scheme_weights("minimum_variance", returns, cap)
    if cap * len(weights) <= 1:
        return
    covariance = ledoit_wolf(returns)
    # What moves from any asset to any other costs variance, as far as the bounds let it move.
    slope = covariance @ weights
    givers, takers = weights > 1e-9, weights < cap - 1e-9
    if givers.any() and takers.any():
        assert slope[givers].max() <= slope[takers].min() + 1e-7 * covariance.diagonal().mean()


@given(windows())
def test_no_other_portfolio_has_less_cvar(window: tuple[np.ndarray, float]) -> None:
    from scipy.optimize import linprog

    returns, cap = window
    n_returns, n_assets = returns.shape
    found = cvar(returns, scheme_weights("cvar", returns, cap))
    if cap * n_assets <= 1:
        return
    # The program as Rockafellar and Uryasev write it: weights, value at risk, losses beyond it.
    tail = 1 / ((1 - CVAR_LEVEL) * n_returns)
    least = linprog(
        np.concatenate([np.zeros(n_assets), [1.0], np.full(n_returns, tail)]),
        A_ub=np.hstack([-returns, -np.ones((n_returns, 1)), -np.eye(n_returns)]),
        b_ub=np.zeros(n_returns),
        A_eq=np.concatenate([np.ones(n_assets), np.zeros(1 + n_returns)])[None],
        b_eq=[1.0],
        bounds=[(0, cap)] * n_assets + [(None, None)] + [(0, None)] * n_returns,
    )
    assert found == pytest.approx(least.fun, abs=1e-9)


def test_two_uncorrelated_assets_by_hand() -> None:
    # Volatilities 1 % and 2 %, correlation 0: variances as 1 to 4.
    returns = np.array([[1, 2], [1, -2], [-1, 2], [-1, -2]]) * 0.01
    np.testing.assert_allclose(scheme_weights("equal_weight", returns), [1 / 2, 1 / 2])
    np.testing.assert_allclose(scheme_weights("inverse_volatility", returns), [2 / 3, 1 / 3])
    # Ledoit-Wolf by hand, in units of 1e-4: S = diag(1, 4), mean 2.5, |S - 2.5 I|^2 = 4.5; each
    # |x x' - S|^2 is 25 - 17 = 8, over 4 returns 2: 2 / 4.5 of the way to diag(2.5, 2.5).
    np.testing.assert_allclose(ledoit_wolf(returns) * 1e4, np.diag([5 / 3, 10 / 3]), atol=1e-12)
    np.testing.assert_allclose(scheme_weights("minimum_variance", returns), [2 / 3, 1 / 3])
    np.testing.assert_allclose(scheme_weights("hrp", returns), [2 / 3, 1 / 3])
    # The worst 5 % of four returns are part of the worst: -1 w - 2 (1 - w) is least at w = 1.
    np.testing.assert_allclose(scheme_weights("cvar", returns), [1, 0], atol=1e-12)
    np.testing.assert_allclose(scheme_weights("cvar", returns, 0.7), [0.7, 0.3], atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_cap_of_one_nth_or_less_is_the_weight_of_each(scheme: str) -> None:
    returns = market(40, 5)
    np.testing.assert_array_equal(scheme_weights(scheme, returns, 0.2), np.full(5, 0.2))
    np.testing.assert_array_equal(scheme_weights(scheme, returns, 0.1), np.full(5, 0.1))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_asset_gets_all_that_it_may(scheme: str) -> None:
    assert scheme_weights(scheme, market(40, 1)) == [1.0]
    assert scheme_weights(scheme, market(40, 1), 0.3) == [0.3]


@pytest.mark.parametrize("scheme", RISKY)
def test_more_assets_than_returns_and_twins_are_no_obstacle(scheme: str) -> None:
    returns = market(10, 30)
    returns[:, 15:] = returns[:, :15]  # the sample covariance has rank 9 at most
    weights = scheme_weights(scheme, returns)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1.0)


def test_what_a_cap_cuts_off_goes_to_the_others_in_proportion() -> None:
    np.testing.assert_allclose(capped(np.array([0.7, 0.2, 0.1]), 0.6), [0.6, 0.8 / 3, 0.4 / 3])
    # The second breaks the cap only by what it is given.
    np.testing.assert_allclose(capped(np.array([0.7, 0.2, 0.1]), 0.4), [0.4, 0.4, 0.2])
    np.testing.assert_allclose(capped(np.array([1.0, 0.0, 0.0]), 0.4), [0.4, 0.3, 0.3])


def test_an_unknown_scheme_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean inverse_volatility"):
        scheme_weights("inverse_vola", market(40, 3))


# skfolio asks for the sample covariance also where the scheme has no use for it.
@pytest.mark.filterwarnings("ignore:The covariance matrix is not positive definite:UserWarning")
@pytest.mark.parametrize(("n_returns", "n_assets"), [(20, 2), (90, 3), (90, 40), (40, 100)])
class TestBesideSkfolio:
    def test_the_covariance_is_that_of_scikit_learn(self, n_returns: int, n_assets: int) -> None:
        from sklearn.covariance import LedoitWolf

        returns = market(n_returns, n_assets)
        expected = np.asarray(LedoitWolf().fit(returns).covariance_)
        np.testing.assert_allclose(ledoit_wolf(returns), expected, rtol=1e-10, atol=1e-18)

    def test_inverse_volatility_is_the_same(self, n_returns: int, n_assets: int) -> None:
        from skfolio.optimization import InverseVolatility

        returns = market(n_returns, n_assets)
        expected = np.asarray(InverseVolatility().fit(returns).weights_)
        found = scheme_weights("inverse_volatility", returns)
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_hierarchical_risk_parity_is_the_same(self, n_returns: int, n_assets: int) -> None:
        from skfolio.moments import LedoitWolf
        from skfolio.optimization import HierarchicalRiskParity
        from skfolio.prior import EmpiricalPrior
        from skfolio.seriation import HierarchicalSeriation

        returns = market(n_returns, n_assets)
        # skfolio turns clusters around so that neighbours are alike; Lopez de Prado does not.
        peer = HierarchicalRiskParity(
            prior_estimator=EmpiricalPrior(covariance_estimator=LedoitWolf()),
            seriation_estimator=HierarchicalSeriation(optimal_ordering=False),
        )
        expected = np.asarray(peer.fit(returns).weights_)
        np.testing.assert_allclose(hierarchical_risk_parity(returns, 1.0), expected, atol=1e-12)

    @pytest.mark.parametrize("cap", [1.0, 0.6])
    def test_minimum_variance_is_the_same(self, n_returns: int, n_assets: int, cap: float) -> None:
        from skfolio.moments import LedoitWolf
        from skfolio.optimization import MeanRisk
        from skfolio.prior import EmpiricalPrior

        returns = market(n_returns, n_assets)
        prior = EmpiricalPrior(covariance_estimator=LedoitWolf())
        expected = np.asarray(
            MeanRisk(prior_estimator=prior, max_weights=cap).fit(returns).weights_
        )
        found = scheme_weights("minimum_variance", returns, cap)
        covariance = ledoit_wolf(returns)
        # Its solver stops at about six digits; ours must not be worse.
        np.testing.assert_allclose(found, expected, atol=5e-4)
        assert found @ covariance @ found <= expected @ covariance @ expected * (1 + 1e-9)

    @pytest.mark.parametrize("cap", [1.0, 0.6])
    def test_least_cvar_is_the_same(self, n_returns: int, n_assets: int, cap: float) -> None:
        from skfolio import RiskMeasure
        from skfolio.optimization import MeanRisk

        returns = market(n_returns, n_assets)
        peer = MeanRisk(risk_measure=RiskMeasure.CVAR, cvar_beta=CVAR_LEVEL, max_weights=cap)
        expected = np.asarray(peer.fit(returns).weights_)
        found = scheme_weights("cvar", returns, cap)
        assert cvar(returns, found) == pytest.approx(cvar(returns, expected), rel=1e-4, abs=1e-8)


def test_no_scheme_imports_skfolio() -> None:
    program = (
        "import sys; import numpy as np\n"
        "from backtest_pipeline.research.portfolio.weights import SCHEMES, scheme_weights\n"
        "returns = np.random.default_rng(7).normal(size=(40, 5))\n"
        "for scheme in SCHEMES: scheme_weights(scheme, returns)\n"
        "sys.exit(', '.join({'skfolio', 'cvxpy', 'sklearn'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
