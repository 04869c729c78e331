"""Many windows of a history simulated at once, each from flat and with its own signals."""

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
    """Events of a strategy under each set of parameters, uint8 `(len(params), n_rows)`.

    Args:
        panel: bars from each asset's first on, with the features that are not `ema_N`, `rsi_N`
            or `atr_N`; these are computed once for all that read them.
        strategy: any.
        params: sets of parameters.

    Raises:
        InvalidInput: for parameters that the strategy does not take.
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
    """Trade windows of a history, each as if its bars were all that there is.

    A window begins flat with the starting cash, and what is held after its last bar is marked to
    its last close. Signals and indicators know the bars before it.

    Args:
        panel: the bars with the columns that stops and sizing read, see `with_config_columns`.
        events: uint8 `(n_sets, n_rows)`, see `simulation.orders`.
        windows: rows of one asset each; they may overlap.
        chosen: int `(n_runs, n_windows)`, row of `events` that a run trades in a window, or
            NO_SIGNALS.
        config: costs, sizing, stops, direction and starting cash.
        funding: rates by symbol, in place of the flat rate of the costs.

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
