"""Warms up numerical code on import; workers are forked from a process that has imported this.

`python -m backtest_pipeline.service.warm` also compiles what probing a strategy needs; a worker
loads that for a strategy without a stored verdict.
"""

import numpy as np
import pandas as pd

from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.api import run_backtest
from backtest_pipeline.pipeline.planning.planned_account import planned_account
from backtest_pipeline.pipeline.stages.conditions import signal_matrix
from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.tables.dimensions import SignalRow

_closes = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, 400)))
_bars = pd.DataFrame(
    {"open": _closes, "high": _closes * 1.01, "low": _closes * 0.99, "close": _closes, "volume": 1},
    index=pd.date_range("2020-01-02", periods=400, tz="UTC"),
)
_STRATEGIES = {
    "ema_crossover": {"fast": 9, "slow": 21},
    "rsi_mean_revert": {"period": 14, "lower": 30, "upper": 70},
    "atr_breakout": {"lookback": 20, "atr_period": 14, "trail_mult": 2.0},
}
_panel = Panel.stack(timeframe("1D"), {"WARM": _bars}, list(_bars.columns))
_features = build_features(_panel)
_signals = [SignalRow(0, "", name, params) for name, params in _STRATEGIES.items()]
simulate_batch(_features, signal_matrix(_features, _signals), SimulationConfig())

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
planned_account(_panel, [_plan], SimulationConfig(), "WARM")

if __name__ == "__main__":
    for _name, _params in _STRATEGIES.items():
        run_backtest(_bars, _name, _params)
