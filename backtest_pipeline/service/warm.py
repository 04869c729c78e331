"""Warms up numerical code on import; workers are forked from a process that has imported this."""

import numpy as np
import pandas as pd

from backtest_pipeline.pipeline.api import run_backtest

_closes = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, 400)))
_bars = pd.DataFrame(
    {"open": _closes, "high": _closes * 1.01, "low": _closes * 0.99, "close": _closes, "volume": 1},
    index=pd.date_range("2020-01-02", periods=400, tz="UTC"),
)
for _name, _params in {
    "ema_crossover": {"fast": 9, "slow": 21},
    "rsi_mean_revert": {"period": 14, "lower": 30, "upper": 70},
    "atr_breakout": {"lookback": 20, "atr_period": 14, "trail_mult": 2.0},
}.items():
    run_backtest(_bars, _name, _params)
