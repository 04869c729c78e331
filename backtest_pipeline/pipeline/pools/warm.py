"""Warms up numerical code on import; workers are forked from a process that has imported this."""

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.api import run_backtest
from backtest_pipeline.pipeline.planning.planned_account import planned_account
from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.simulation.config import SimulationConfig

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

_plan = plan_from(
    {
        "generated_at": "2020-01-02T00:00:00Z",
        "effective_ts": "2020-01-02T00:00:00Z",
        "valid_until": "2022-01-01T00:00:00Z",
        "regime": "mixed",
        "stance": "active",
        "triggers": [
            {
                "symbol": "WARM",
                "timeframe": "1D",
                "category": "trend_continuation",
                "direction": "long",
                "entry": "close > shift(close, 1)",
                "exit": "close < shift(close, 1)",
                "stop_loss_pct": 5.0,
            }
        ],
        "limits": {"max_position_risk_pct": 10.0},
    }
)
_panel = Panel.stack(timeframe("1D"), {"WARM": _bars}, list(_bars.columns))
planned_account(_panel, [_plan], SimulationConfig(), "WARM")
