"""Rolling figures: those of the dictionary for each stretch, and none after a total loss."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.report.rolling_figures import rolling_statistics
from backtest_pipeline.simulation.metrics.metrics import equity_metrics

N, WINDOW = 200, 90
RNG = np.random.default_rng(11)
OWN = 100 * np.exp(np.cumsum(RNG.normal(0, 0.02, N)))
HELD = 100 * np.exp(np.cumsum(RNG.normal(0, 0.03, N)))


@pytest.mark.parametrize("at", [0, 57, N - 1 - WINDOW])
def test_a_stretch_has_the_figures_of_the_dictionary(at: int) -> None:
    rolled = rolling_statistics(OWN, WINDOW, HELD)
    part, held = (curve[at : at + WINDOW + 1].copy() for curve in (OWN, HELD))
    ts, bounds = np.arange(WINDOW + 1) * DAY_US, np.array([0, WINDOW + 1])
    whole = equity_metrics(ts, bounds, part.reshape(1, -1), held)
    assert set(rolled) == {"total_return", "annual_volatility", "sharpe", "beta"}
    for name, values in rolled.items():
        assert len(values) == N - WINDOW
        assert values[at] == pytest.approx(whole[name][0], rel=1e-12), name


def test_chosen_stretches_are_those_of_all() -> None:
    at = np.array([3, 40])
    every, some = rolling_statistics(OWN, WINDOW), rolling_statistics(OWN, WINDOW, at=at)
    for name, values in some.items():
        np.testing.assert_array_equal(values, every[name][at])


def test_after_a_total_loss_nothing_is_defined() -> None:
    lost = OWN.copy()
    lost[100:] = 0.0
    for benchmark in (None, HELD):
        rolled = rolling_statistics(lost, WINDOW, benchmark)
        assert np.isnan(rolled["sharpe"][100:]).all()
        assert np.isfinite(rolled["sharpe"][:10]).all()
    assert np.isnan(rolling_statistics(lost * 0, WINDOW)["total_return"]).all()
