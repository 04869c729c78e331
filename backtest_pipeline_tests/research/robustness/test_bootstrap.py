"""The stationary bootstrap: its blocks, its intervals, and what they cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.research.robustness.bootstrap import (
    BAND_PERCENTILES,
    DailyEquity,
    bootstrap,
    daily_equity,
    interval,
    optimal_block_length,
    p_value,
    p_value_above_zero,
    resampled_rows,
)
from backtest_pipeline.simulation.metrics.metrics import equity_metrics
from backtest_pipeline_tests.simulation.markets import google, random_panel


def autoregressive(n: int, coefficient: float) -> np.ndarray:
    """A series that is the same on every machine: a linear congruential generator drives it."""
    state, value, found = 12345, 0.0, []
    for _ in range(n):
        state = (1103515245 * state + 12345) % 2**31
        value = coefficient * value + state / 2**31 - 0.5
        found.append(value)
    return np.array(found)


def of_returns(returns: np.ndarray) -> DailyEquity:
    equity = 10_000 * np.cumprod(np.concatenate(([1.0], 1 + returns)))
    return DailyEquity(np.arange(len(equity)), equity)


# What `optimal_block_length` of the package arch, version 8.0.0, gives for the same series.
ARCH = [
    (60, 0.0, 1.0250209382878752),
    (60, 0.8, 5.358073564367314),
    (250, 0.0, 0.910678677824502),
    (250, 0.3, 2.975963431250754),
    (1000, -0.5, 12.511338168700297),
    (1000, 0.9, 25.325077028523378),
    (3000, 0.6, 17.561635820667536),
]


@pytest.mark.parametrize(("n", "coefficient", "expected"), ARCH)
def test_block_lengths_are_those_of_an_independent_program(
    n: int, coefficient: float, expected: float
) -> None:
    found = optimal_block_length(autoregressive(n, coefficient))
    assert found == pytest.approx(max(expected, 1.0), rel=1e-12)


def test_block_lengths_of_real_returns_are_those_of_an_independent_program(
    test_data: Path,
) -> None:
    close = google(test_data)["close"].to_numpy()
    returns = close[1:] / close[:-1] - 1
    assert len(returns) == 2147
    assert optimal_block_length(returns) == 1.0  # arch: 0.642
    assert optimal_block_length(returns**2) == pytest.approx(7.468463784533663, rel=1e-12)


def test_the_block_length_of_what_never_changes_is_one() -> None:
    assert optimal_block_length(np.full(50, 0.01)) == 1.0


@given(st.integers(2, 200), st.floats(1, 30), st.integers(0, 2**63 - 1))
def test_draws_take_from_what_there_is(n: int, length: float, seed: int) -> None:
    rows = resampled_rows(n, length, 3, seed)
    assert rows.shape == (3, n)
    assert rows.min() >= 0
    assert rows.max() < n


@given(st.integers(2, 200), st.integers(0, 2**63 - 1))
def test_within_a_block_the_first_observation_follows_the_last(n: int, seed: int) -> None:
    rows = resampled_rows(n, 1e12, 3, seed)  # no second block but by a chance of one in 10**12
    np.testing.assert_array_equal(np.diff(rows, axis=1) % n, 1 % n)


@pytest.mark.parametrize("length", [1.0, 4.0, 12.5])
def test_blocks_are_as_long_on_average_as_they_should_be(length: float) -> None:
    from scipy import stats

    n = 997
    rows = resampled_rows(n, length, 200, 3)
    # A new block is the successor by chance as well, once in n.
    begins = np.diff(rows, axis=1) % n != 1
    expected = (1 - 1 / n) / length
    assert begins.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / begins.size))
    assert stats.kstest(rows[:, -1] / n, "uniform").pvalue > 0.001


def test_the_same_seed_draws_the_same_and_fewer_draws_are_the_first_of_more() -> None:
    many = resampled_rows(100, 5.0, 50, seed=7)
    np.testing.assert_array_equal(resampled_rows(100, 5.0, 50, seed=7), many)
    np.testing.assert_array_equal(resampled_rows(100, 5.0, 20, seed=7), many[:20])
    assert not np.array_equal(resampled_rows(100, 5.0, 50, seed=8), many)


@pytest.mark.parametrize(("timeframe", "holes"), [("1D", 0.0), ("1D", 0.3), ("4H", 0.2), ("1W", 0)])
def test_daily_equity_is_what_the_metrics_are_computed_from(timeframe: str, holes: float) -> None:
    rng = np.random.default_rng(5)
    panel = random_panel(rng, [200], timeframe_name=timeframe, holes=holes)
    equity = 1000 * np.exp(np.cumsum(rng.normal(0, 0.02, 200)))
    returns = daily_equity(panel.ts, equity).returns
    known = equity_metrics(panel.ts, panel.offsets, equity[None, :], np.ones(200))
    assert len(returns) == known["n_days"][0]
    assert returns.mean() / returns.std(ddof=1) * np.sqrt(365) == pytest.approx(
        known["sharpe"][0], rel=1e-12
    )


def test_a_single_bar_has_no_daily_return() -> None:
    assert len(daily_equity(np.array([5 * DAY_US - 1000]), np.array([10.0])).returns) == 0


def test_bands_are_the_quantiles_of_independent_days() -> None:
    from scipy import stats

    rng = np.random.default_rng(1)
    logs = rng.normal(0.001, 0.02, 400)
    found = bootstrap(of_returns(np.expm1(logs)), 4000, 0, block_length=1.0)
    assert found.bands.shape == (5, 401)
    np.testing.assert_allclose(found.bands[:, 0], 10_000)
    assert np.all(np.diff(found.bands, axis=0) >= 0)
    for day in (100, 400):
        expected = logs.mean() * day + logs.std() * np.sqrt(day) * stats.norm.ppf(
            np.array(BAND_PERCENTILES) / 100
        )
        error = 4 * logs.std() * np.sqrt(day / 4000) * 2
        np.testing.assert_allclose(np.log(found.bands[:, day] / 10_000), expected, atol=error)


def covered(coefficient: float, block_length: float | None, n_series: int = 100) -> float:
    """Share of series whose true Sharpe ratio lies in its interval of 90 %."""
    hits = 0
    for seed in range(n_series):
        noise = np.random.default_rng(seed).normal(0, 0.01, 400)
        returns = np.empty(400)
        returns[0] = noise[0]
        for t in range(1, 400):
            returns[t] = coefficient * returns[t - 1] + noise[t]
        drift = 0.0005
        deviation = 0.01 / np.sqrt(1 - coefficient**2)
        found = bootstrap(of_returns(returns + drift), 120, seed, block_length)
        low, high = interval(found.samples["sharpe"])
        hits += low <= drift / deviation * np.sqrt(365) <= high
    return hits / n_series


def test_nine_in_ten_intervals_cover_the_true_sharpe_ratio() -> None:
    assert covered(0.0, None) == pytest.approx(0.9, abs=0.08)


def test_of_dependent_days_blocks_cover_more_than_single_days_do() -> None:
    singly, in_blocks = covered(0.5, 1.0), covered(0.5, None)
    assert singly < 0.75
    assert in_blocks > singly + 0.1


def test_p_values_of_runs_without_an_edge_are_uniform() -> None:
    from scipy import stats

    p_values = []
    for seed in range(200):
        returns = np.random.default_rng(seed + 1000).normal(0, 0.01, 250)
        found = bootstrap(of_returns(returns), 199, seed, block_length=1.0)
        sharpe = returns.mean() / returns.std(ddof=1) * np.sqrt(365)
        p_values.append(p_value_above_zero(sharpe, found.samples["sharpe"]))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_a_p_value_counts_the_value_itself() -> None:
    assert p_value(3.0, np.array([1.0, 2.0, 3.0, 4.0])) == 3 / 5
    assert p_value(5.0, np.array([1.0, 2.0, 3.0, 4.0])) == 1 / 5
    assert np.isnan(p_value_above_zero(np.nan, np.array([1.0])))
    assert np.isnan(p_value_above_zero(1.0, np.array([np.nan])))


def test_a_day_of_total_loss_ends_the_path_that_draws_it() -> None:
    returns = np.full(30, 0.01)
    returns[10] = -1.0
    returns[11:] = 0.0
    found = bootstrap(of_returns(returns), 200, 0, block_length=1.0)
    lost = found.samples["total_return"] == -1.0
    # The day is missing from a path with probability (29/30)**30 = 0.36.
    assert lost.mean() == pytest.approx(0.64, abs=0.12)
    np.testing.assert_array_equal(found.samples["max_drawdown"][lost], -1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draws": 0}, "draws must be a whole number from 1 to 10,000, not 0"),
        ({"draws": 10_001}, "not 10001"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"block_length": 0.5}, "block_length must be between 1 and the run's 30 days"),
        ({"block_length": 31.0}, "block_length must be between 1 and the run's 30 days"),
        ({"block_length": float("nan")}, "not nan"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, float], message: str) -> None:
    asked: dict = {"draws": 10, "seed": 0, **arguments}
    with pytest.raises(InvalidInput, match=message):
        bootstrap(of_returns(np.full(30, 0.01)), **asked)


def test_too_few_days_have_no_block_length() -> None:
    with pytest.raises(InvalidInput, match="19 returns are too few to choose a block length"):
        optimal_block_length(np.zeros(19))
