"""The studentised interval of the Sharpe ratio: its parts, and what it covers."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.robustness.draws import Purpose, generator
from backtest_pipeline.research.robustness.sharpe_interval import (
    block_days,
    influence,
    sharpe_interval,
)


def normal(seed: int, n: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.02, n)


def test_blocks_are_as_long_as_positions_are_held_up_to_a_third_of_the_days() -> None:
    returns = normal(0, 400)
    assert block_days(returns, 1.0) < 12
    assert block_days(returns, 12.3) == 13
    assert block_days(returns, 1e9) == 60  # 3 roots of 400
    assert block_days(returns[:30], 1e9) == 10


def test_the_influence_of_a_day_is_what_leaving_it_out_changes() -> None:
    returns = normal(3, 500, 0.002)
    sharpe = returns.mean() / returns.std()
    without = np.delete(returns, 17)
    change = (sharpe - without.mean() / without.std()) * 500
    standardised = (returns - returns.mean()) / returns.std()
    assert influence(standardised, sharpe)[17] == pytest.approx(change, rel=0.05)


def test_the_interval_is_what_laid_out_histories_give() -> None:
    """The sums of blocks against every return of every resampled history."""
    returns, draws, seed = normal(5, 130, 0.001), 40, 9
    length = block_days(returns, 6.0)
    assert length == 6
    n_blocks = 130 // 6
    sharpe = returns.mean() / returns.std()
    studentised = []
    for draw in range(draws):
        starts = generator(seed, Purpose.SHARPE, draw).integers(0, 130, n_blocks)
        rows = (starts[:, None] + np.arange(6)) % 130
        drawn = returns[rows]
        own = drawn.mean() / drawn.std()
        values = influence((drawn - drawn.mean()) / drawn.std(), own)
        error = np.sqrt((values.sum(axis=1) ** 2).sum()) / drawn.size
        studentised.append(abs(own - sharpe) / error)
    values = influence((returns - returns.mean()) / returns.std(), sharpe)
    products = [(values[lag:] * values[: 130 - lag]).sum() / 130 for lag in range(12)]
    weighted = products[0] + 2 * sum((1 - lag / 12) * products[lag] for lag in range(1, 12))
    reach = np.quantile(studentised, 0.9) * np.sqrt(weighted / 130)
    yearly = np.sqrt(365 * 129 / 130)
    expected = (yearly * (sharpe - reach), yearly * (sharpe + reach))
    found = sharpe_interval(returns, draws, seed, holding_days=6.0)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_interval_lies_about_the_sharpe_ratio_in_excess_of_cash() -> None:
    returns = normal(7, 250, 0.001)
    excess = returns - 0.0002
    low, high = sharpe_interval(returns, 100, 0, risk_free=0.0002)
    own = excess.mean() / excess.std(ddof=1) * np.sqrt(365)
    assert (low + high) / 2 == pytest.approx(own, rel=1e-12)
    assert low < own < high


def covered(series: list[np.ndarray], sharpe: float, holding_days: float) -> float:
    hits = 0
    for seed, returns in enumerate(series):
        low, high = sharpe_interval(returns, 150, seed, holding_days=holding_days)
        hits += low <= sharpe <= high
    return hits / len(series)


def test_about_nine_in_ten_hold_the_true_ratio_of_independent_days() -> None:
    series = [normal(seed, 365, 0.001) for seed in range(200)]
    assert covered(series, 0.05 * np.sqrt(365), 1.0) == pytest.approx(0.9, abs=0.06)


def test_the_true_ratio_is_held_where_few_days_have_a_position() -> None:
    """Held ten days in thirty: percentiles hold it 85 to 87 % of the time."""
    series = []
    for seed in range(200):
        held = np.roll(np.tile(np.repeat([1.0, 0.0], (10, 20)), 20)[:500], seed)
        series.append(held * normal(seed, 500))
    assert covered(series, 0.0, 10.0) == pytest.approx(0.9, abs=0.06)


def test_the_seed_decides_the_interval() -> None:
    returns = normal(1, 100)
    assert sharpe_interval(returns, 50, 3) == sharpe_interval(returns, 50, 3)
    assert sharpe_interval(returns, 50, 3) != sharpe_interval(returns, 50, 4)


def test_what_does_not_vary_has_no_interval() -> None:
    assert np.isnan(sharpe_interval(np.full(40, 0.01), 10, 0)).all()
    with pytest.raises(InvalidInput, match="too few"):
        sharpe_interval(normal(0, 19), 10, 0)
    with pytest.raises(InvalidInput, match="draws must be"):
        sharpe_interval(normal(0, 40), 0, 0)
