"""What a run is compared with: an equity of something else, on the run's own bars."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.panel import Panel, stamps_us
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.inputs import buy_and_hold

BENCHMARKS = ("asset", "cash")


def benchmark_equity(
    panel: Panel,
    benchmark: str | pd.Series,
    config: SimulationConfig,
    funding: FundingRates | None = None,
) -> np.ndarray:
    """Equity of the benchmark at each bar of the panel, float64 `(n_rows,)`.

    Args:
        panel: the run's bars.
        benchmark: "asset" (each asset bought and held at the run's costs), "cash" (earning the
            risk-free return), or an equity by tz-aware stamp: the value seen last counts, and
            before its first the starting cash.
        config: gives costs, starting cash and risk-free return.
        funding: rates by symbol.

    Raises:
        UnknownName: for another name.
        InvalidInput: for an equity that is empty, unsorted, naive or not above 0.
    """
    if isinstance(benchmark, pd.Series):
        return seen_last(panel.ts, benchmark, config.initial_cash)
    if benchmark == "asset":
        return buy_and_hold(panel, config, funding)
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
        InvalidInput: for an equity that is empty, unsorted, naive or not above 0.
    """
    stamps = stamps_us(equity.index, "benchmark")
    values = equity.to_numpy(np.float64, na_value=np.nan)
    if len(values) == 0 or np.any(np.diff(stamps) <= 0) or not np.all(values > 0):
        raise InvalidInput("the benchmark's equity must be above 0, at strictly increasing stamps")
    scaled = np.concatenate(([start], values / values[0] * start))
    return scaled[np.searchsorted(stamps, ts, side="right")]
