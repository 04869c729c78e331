"""What a run is compared with: an equity of something else, on the run's own bars."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.panel import Panel, stamps_us
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.inputs import buy_and_hold

BENCHMARKS = ("asset", "cash")


def benchmark_equity(
    panel: Panel,
    benchmark: str | pd.Series,
    config: SimulationConfig,
) -> np.ndarray:
    """Equity of the benchmark at each bar of the panel, float64 `(n_rows,)`.

    Args:
        panel: the run's bars.
        benchmark: "asset" (each asset bought and held at the run's fee and slippage), "cash"
            (earning the risk-free return), or an equity by tz-aware stamp: the value seen last
            counts, and before its first the starting cash.
        config: gives costs, starting cash and risk-free return.

    Raises:
        UnknownName: for another name.
        InvalidInput: for an equity that `equity_values` refuses.
    """
    if isinstance(benchmark, pd.Series):
        return seen_last(panel.ts, benchmark, config.initial_cash)
    if benchmark == "asset":
        return buy_and_hold(panel, config)
    if benchmark == "cash":
        first = np.repeat(panel.ts[panel.offsets[:-1][panel.lengths > 0]],
                          panel.lengths[panel.lengths > 0])  # fmt: skip
        days = (panel.ts - first) / DAY_US
        return config.initial_cash * (1.0 + config.risk_free) ** days
    raise UnknownName("benchmark", benchmark, BENCHMARKS)


def seen_last(ts: np.ndarray, equity: pd.Series, start: float) -> np.ndarray:
    """An equity at other stamps: its value seen last, `start` at its first and before it.

    Args:
        ts: int64 microseconds UTC.
        equity: by tz-aware, strictly increasing stamp.
        start: what it is scaled to begin with.

    Raises:
        InvalidInput: for an equity that `equity_values` refuses.
    """
    stamps, values = equity_values(equity, "benchmark")
    scaled = np.concatenate(([start], values / values[0] * start))
    return scaled[np.searchsorted(stamps, ts, side="right")]


def equity_values(equity: pd.Series, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Stamps (int64 microseconds UTC) and values of an equity series.

    Raises:
        InvalidInput: naming `what`, for anything but a series of finite numbers at strictly
            increasing tz-aware stamps, which starts above 0 and does not come back from 0.
    """
    if not isinstance(equity, pd.Series):
        raise InvalidInput(f"{what} must be a pandas series of equity, not {type(equity).__name__}")
    stamps = stamps_us(equity.index, what)
    if len(stamps) == 0 or np.any(np.diff(stamps) <= 0):
        raise InvalidInput(f"{what} must have strictly increasing stamps, at least one")
    try:
        values = equity.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what} does not hold numbers: {error}") from error
    if not np.all(np.isfinite(values) & (values >= 0)) or values[0] == 0:
        raise InvalidInput(f"{what} must be finite, at least 0, and above 0 at its start")
    if np.any((values[1:] > 0) & (values[:-1] == 0)):
        raise InvalidInput(f"{what} rises again from 0, where there is nothing left to rise from")
    return stamps, values
