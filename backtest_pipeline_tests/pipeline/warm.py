"""Imports and computes once all that a refresh needs, so that forks of this process need not."""

import adbc_driver_postgresql.dbapi

import backtest_pipeline_tests.pipeline.processes as processes
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.stages.conditions import signal_matrix
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.tables.dimensions import SignalRow

assert adbc_driver_postgresql.dbapi
_bars = resample(processes.MARKET.panels["1D"], timeframe("1D"))
_features = build_features(_bars)
_signals = [
    SignalRow(1, "ema", "ema_crossover", {"fast": 9, "slow": 21}),
    SignalRow(2, "rsi", "rsi_mean_revert", {"period": 14, "lower": 30, "upper": 70}),
    SignalRow(3, "atr", "atr_breakout", {"lookback": 20, "atr_period": 14, "trail_mult": 2.0}),
]
simulate_batch(_features, signal_matrix(_features, _signals), SimulationConfig())
