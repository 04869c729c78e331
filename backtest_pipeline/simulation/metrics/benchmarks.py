"""Benchmarks: buy and hold, cash, or any other equity curve, on the run's own bars."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.panel import Panel, stamps_us
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.inputs import buy_and_hold
from backtest_pipeline.simulation.marks import Marks

BENCHMARKS = ("asset", "cash")


def benchmark_equity(
    panel: Panel,
    marks: Marks,
    benchmark: str | pd.Series,
    config: SimulationConfig,
) -> np.ndarray:
    """Equity of the benchmark at each mark, float64 `(n_marks,)`.

    Args:
        panel: the run's bars.
        marks: when the run is marked.
        benchmark: "asset" (buy and hold of each asset at the run's fee and slippage), "cash"
            (earning the risk-free return), or equity by tz-aware timestamp, carried forward from
            its last value; before its first value, the starting cash.
        config: costs, starting cash and risk-free return of the run.

    Raises:
        UnknownName: for another name.
        InvalidInput: for an invalid equity series, see `equity_values`.
    """
    if isinstance(benchmark, pd.Series):
        return carried_forward(marks.ts, benchmark, config.initial_cash)
    if benchmark == "asset":
        return buy_and_hold(panel, marks, config)
    if benchmark == "cash":
        traded = marks.lengths > 0
        first = np.repeat(marks.ts[marks.offsets[:-1][traded]], marks.lengths[traded])
        days = (marks.ts - first) / DAY_US
        return config.initial_cash * (1.0 + config.risk_free) ** days
    raise UnknownName("benchmark", benchmark, BENCHMARKS)


def carried_forward(ts: np.ndarray, equity: pd.Series, start: float) -> np.ndarray:
    """An equity series at other timestamps, each with its last known value, float64 `(n,)`.

    Args:
        ts: int64 `(n,)`, microseconds since 1970 UTC.
        equity: equity by tz-aware, strictly increasing timestamp.
        start: value that the series is scaled to start at; also used before its first timestamp.

    Raises:
        InvalidInput: for an invalid equity series, see `equity_values`.
    """
    stamps, values = equity_values(equity, "benchmark")
    scaled = np.concatenate(([start], values / values[0] * start))
    return scaled[np.searchsorted(stamps, ts, side="right")]


def equity_values(equity: pd.Series, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Timestamps (int64, microseconds since 1970 UTC) and values (float64) of an equity series.

    Raises:
        InvalidInput: naming `what`, unless it is a series of finite numbers at strictly increasing
            tz-aware timestamps that starts above 0, is never negative, and stays 0 once it is 0.
    """
    if not isinstance(equity, pd.Series):
        raise InvalidInput(f"{what} must be a pandas Series of equity, not {type(equity).__name__}")
    stamps = stamps_us(equity.index, what)
    if len(stamps) == 0 or np.any(np.diff(stamps) <= 0):
        raise InvalidInput(f"{what} must have at least one timestamp, all strictly increasing")
    try:
        values = equity.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what} must be numeric: {error}") from error
    if not np.all(np.isfinite(values) & (values >= 0)) or values[0] == 0:
        raise InvalidInput(f"{what} must be finite, never negative, and above 0 at its start")
    if np.any((values[1:] > 0) & (values[:-1] == 0)):
        raise InvalidInput(f"{what} falls to 0 and rises again; equity of 0 must stay 0")
    return stamps, values
