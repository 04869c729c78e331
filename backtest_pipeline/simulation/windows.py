"""Simulate many windows of a history at once, each starting flat and with its own signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.orders import event_bits
from backtest_pipeline.strategies.strategy import Strategy, signal_events

NO_SIGNALS = -1


def events_by_params(
    panel: Panel, strategy: Strategy[Any], params: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """Signals of a strategy for each parameter set, uint8 `(len(params), n_rows)`.

    Args:
        panel: bars from each asset's first one on, and features; missing `ema_N`, `rsi_N` and
            `atr_N` are computed once for all parameter sets.
        strategy: the strategy.
        params: parameter sets.

    Returns:
        Bits as in `simulation.orders`.

    Raises:
        InvalidInput: for parameters that the strategy rejects.
    """
    parsed = [strategy.parse(given) for given in params]
    read = sorted({name for given in parsed for name in strategy.columns(given)})
    panel = with_indicators(panel, read)
    events = np.zeros((len(parsed), len(panel)), np.uint8)
    for row, given in zip(events, parsed, strict=True):
        row[:] = event_bits(signal_events(strategy, panel, given))
    return events


def simulate_windows(
    panel: Panel,
    events: np.ndarray,
    windows: Sequence[slice],
    chosen: np.ndarray,
    config: SimulationConfig,
    *,
    funding: FundingRates | None = None,
) -> BatchResult:
    """Simulate windows of a history, each on its own.

    A window starts flat with the starting cash; a position open at its end is marked to its last
    close. Signals and indicators use the bars before the window too.

    Args:
        panel: bars, with the columns that stops and sizing need, see `with_config_columns`.
        events: uint8 `(n_sets, n_rows)`, bits as in `simulation.orders`.
        windows: rows of one asset each; they may overlap.
        chosen: int `(n_runs, n_windows)`, the row of `events` to trade in each window, or
            NO_SIGNALS.
        config: costs, sizing, stops, direction and starting cash.
        funding: funding rates by symbol; None for the flat rate of the costs.

    Returns:
        One run per row of `chosen`; the segments of its panel are the windows.
    """
    cut = panel.windows(windows)
    traded = np.zeros((len(chosen), len(cut)), np.uint8)
    for w, window in enumerate(windows):
        trading = chosen[:, w] != NO_SIGNALS
        rows = slice(cut.offsets[w], cut.offsets[w + 1])
        traded[trading, rows] = events[chosen[trading, w], window]
    return simulate_batch(cut, traded, config, funding=funding)
