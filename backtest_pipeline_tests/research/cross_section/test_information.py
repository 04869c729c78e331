"""Information coefficients against pandas and a golden panel."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.research.cross_section.information import (
    FIGURES,
    forward_returns,
    information,
    newey_west_t,
)

NAN = np.nan
# Made by hand and checked with scipy, alphalens and pandas: a missing return is not ranked.
IC = [
    *(0.142857142857, -0.714285714286, 0.428571428571, 0.771428571429, NAN, -0.428571428571),
    *(-0.2, 0.485714285714, -0.6, -0.2, -0.3, NAN),
]
LONG_SHORT = [
    *(0.003086584603, -0.039917315769, 0.020904853617, 0.048340705623, NAN, -0.034845728297),
    *(-0.018821667306, 0.027476338244, -0.031821873714, -0.003853734731, -0.009867727275, NAN),
]


def golden() -> tuple[np.ndarray, np.ndarray]:
    """Scores and closes of six assets on twelve dates; the last asset ends after the ninth."""
    i, t = np.arange(6), np.arange(12)[:, None]
    close = (100 + 10 * i + ((7 * i + 3) * (t + 1) ** 2 % 23) - (5 * t * (i + 1) % 11)).astype(
        float
    )
    score = (5 * (i + 2) * (t + 3) % 7).astype(float)
    close[9:, 5] = score[9:, 5] = score[4, 1] = NAN
    return score, close


def drawn(seed: int, *, n_dates: int = 60, n_assets: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties and holes, and closes with holes."""
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 7, (n_dates, n_assets)).astype(float)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.05, (n_dates, n_assets)), axis=0))
    score[rng.random(score.shape) < 0.1] = NAN
    close[rng.random(close.shape) < 0.1] = NAN
    return score, close


def test_the_golden_panel() -> None:
    score, close = golden()
    found = information(np.arange(12), score, close)
    np.testing.assert_allclose(found.ic, IC, atol=1e-12)
    np.testing.assert_allclose(found.factor_return, LONG_SHORT, atol=1e-12)
    figures = found.figures()
    assert figures.keys() == FIGURES.keys()
    assert figures["mean_ic"] == pytest.approx(-0.061428571429, abs=1e-12)
    assert figures["icir"] == pytest.approx(-0.123649808658, abs=1e-12)
    assert figures["mean_ic_pearson"] == pytest.approx(-0.045004758774, abs=1e-12)
    assert figures["icir_pearson"] == pytest.approx(-0.102230372594, abs=1e-12)
    assert figures["factor_return"] == pytest.approx(-0.003931956500, abs=1e-12)
    assert figures["ic_hit_rate"] == 0.4


@pytest.mark.parametrize("horizon", [1, 5])
@pytest.mark.parametrize("seed", range(3))
def test_all_figures_equal_pandas(seed: int, horizon: int) -> None:
    score, close = drawn(seed)
    found = information(np.arange(len(score)), score, close, horizon=horizon, quantiles=3)
    scores, closes = pd.DataFrame(score), pd.DataFrame(close)
    returns = closes.shift(-horizon) / closes - 1
    for n in range(len(score)):
        pair = pd.DataFrame({"s": scores.loc[n], "r": returns.loc[n]}).dropna()
        assert found.n_ranked[n] == len(pair)
        given, followed = (pd.Series(pair[name]) for name in ("s", "r"))
        spearman = given.rank().corr(followed.rank())
        assert found.ic[n] == pytest.approx(spearman, abs=1e-12, nan_ok=True)
        assert found.ic_pearson[n] == pytest.approx(given.corr(followed), abs=1e-12, nan_ok=True)
        bins = np.ceil(scores.loc[n].rank(pct=True) * 3 - 1e-9)
        by_bin = returns.loc[n].groupby(bins).mean().reindex([1, 2, 3])
        np.testing.assert_allclose(found.quantile_return[n], by_bin, atol=1e-12)
        if n:
            before = set(scores.columns[np.ceil(scores.loc[n - 1].rank(pct=True) * 3 - 1e-9) == 3])
            now = set(scores.columns[bins == 3])
            share = len(now - before) / len(now) if now and before else NAN
            assert found.quantile_turnover[n, 2] == pytest.approx(share, nan_ok=True)
            same = scores.loc[n].rank().corr(scores.loc[n - 1].rank())
            assert found.rank_autocorrelation[n] == pytest.approx(same, abs=1e-12, nan_ok=True)
    ic = pd.Series(found.ic)
    figures = found.figures()
    assert figures["mean_ic"] == pytest.approx(ic.mean(), abs=1e-12)
    assert figures["icir"] == pytest.approx(ic.mean() / ic.std(ddof=1), abs=1e-12)


def test_the_order_of_assets_plays_no_part() -> None:
    score, close = drawn(7)
    order = np.random.default_rng(1).permutation(score.shape[1])
    one = information(np.arange(60), score, close)
    other = information(np.arange(60), score[:, order], close[:, order])
    np.testing.assert_allclose(one.ic, other.ic, atol=1e-12)
    np.testing.assert_array_equal(one.quantile[:, order], other.quantile)


def test_later_dates_change_nothing_before() -> None:
    score, close = drawn(3)
    whole = information(np.arange(60), score, close, horizon=2)
    cut = information(np.arange(40), score[:40], close[:40], horizon=2)
    np.testing.assert_array_equal(whole.ic[:38], cut.ic[:38])
    np.testing.assert_array_equal(whole.quantile[:40], cut.quantile)


def test_prices_are_not_carried_forward() -> None:
    close = np.array([[100.0, 50.0], [110.0, NAN], [121.0, 60.0]])
    np.testing.assert_allclose(forward_returns(close, 1), [[0.1, NAN], [0.1, NAN], [NAN, NAN]])


def test_newey_west_without_lags_is_the_usual_t_value_of_ddof_0() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 200)
    usual = values.mean() / values.std(ddof=0) * np.sqrt(200)
    assert newey_west_t(values, 0) == pytest.approx(usual, abs=1e-12)


def test_newey_west_by_hand() -> None:
    values = np.array([1.0, 2.0, 0.0, 1.0, 3.0])
    d = values - 1.4
    covariances = [sum(d[k:] * d[: len(d) - k]) / 5 for k in range(3)]
    variance = covariances[0] + 2 * (2 / 3 * covariances[1] + 1 / 3 * covariances[2])
    assert newey_west_t(values, 2) == pytest.approx(1.4 / np.sqrt(variance / 5), abs=1e-12)


def test_overlapping_returns_do_not_make_a_worthless_score_significant() -> None:
    """A persistent score without worth: |t| > 1.96 in 69 % of trials without the correction."""
    rng, plain, corrected = np.random.default_rng(5), 0, 0
    for _ in range(60):
        score = np.cumsum(rng.normal(0, 1, (600, 20)), axis=0)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.03, (600, 20)), axis=0))
        found = information(np.arange(600), score, close, horizon=20)
        plain += abs(newey_west_t(found.ic, 0)) > 1.96
        corrected += abs(found.figures()["ic_t_value"]) > 1.96
    assert plain > 25
    assert corrected < plain / 2


@pytest.mark.parametrize(
    ("score", "close"),
    [
        (np.full((5, 4), 1.0), np.arange(20.0).reshape(5, 4) + 1),
        (np.full((5, 4), NAN), np.arange(20.0).reshape(5, 4) + 1),
        (np.ones((5, 1)), np.ones((5, 1))),
        (np.arange(20.0).reshape(5, 4), np.ones((5, 4))),
    ],
)
def test_what_does_not_vary_is_undefined(score: np.ndarray, close: np.ndarray) -> None:
    found = information(np.arange(5), score, close)
    assert np.isnan(found.ic).all()
    assert np.isnan(found.figures()["icir"])
