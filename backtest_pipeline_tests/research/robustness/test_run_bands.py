"""The one band of a run: the numbers of an assessment with the same draws and seed."""

from __future__ import annotations

import numpy as np
import pytest

import backtest_pipeline as bp
from backtest_pipeline.research.robustness.bootstrap import DailyEquity
from backtest_pipeline.research.robustness.run_bands import BANDED, DRAWS, SEED, bands_of


def test_a_band_is_that_of_an_assessment() -> None:
    bars = bp.load_bars(asset="S-ALPHA").iloc[:500]
    assessed = bp.robustness(bars, "ema", {"fast": 9, "slow": 21}, draws=DRAWS, seed=SEED)
    ran = bp.run_backtest(bars, "ema", {"fast": 9, "slow": 21})
    equity = assessed.bands["equity"].to_numpy()
    held = ran.metrics["avg_holding_days"]
    bands = bands_of(DailyEquity(np.arange(len(equity)), equity), holding_days=held)
    assert bands is not None
    for name in ("total_return", "sharpe"):
        found = (assessed.numbers[f"{name}_low"], assessed.numbers[f"{name}_high"])
        assert bands.intervals[name] == pytest.approx(found, rel=1e-12), name
    assert set(bands.intervals) == set(BANDED)
    for percentile, row in zip((5, 25, 50, 75, 95), bands.percentiles, strict=True):
        np.testing.assert_allclose(row, assessed.bands[f"p{percentile:02}"], rtol=1e-12)


@pytest.mark.parametrize("equity", [np.linspace(1, 2, 20), np.ones(100)])
def test_few_or_constant_days_have_no_band(equity: np.ndarray) -> None:
    assert bands_of(DailyEquity(np.arange(len(equity)), equity)) is None
