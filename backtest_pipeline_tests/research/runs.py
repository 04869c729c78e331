"""Runs for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT
from backtest_pipeline.simulation.pandas_objects.frames import bars_panel
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.simulation.markets import bars_of, random_events, random_panel

FREE = CostModel(0.0, 0.0)


def run_of(
    opens: Sequence[float],
    events: dict[int, int],
    config: SimulationConfig | None = None,
    highs: Sequence[float] | None = None,
    lows: Sequence[float] | None = None,
) -> RunInputs:
    """A run on daily bars that close where the next one opens, with signals at these bars."""
    closes = [*opens[1:], opens[-1]]
    panel = bars_panel(bars_of(opens, closes, highs, lows), "1D")
    signals = np.zeros((1, len(opens)), np.uint8)
    for bar, event in events.items():
        signals[0, bar] = event
    return RunInputs(panel, signals, config or SimulationConfig(CostModel(0.0, 0.0)))


def random_run(
    rng: np.random.Generator, n_bars: int, config: SimulationConfig | None = None
) -> RunInputs:
    """Random signals on a random walk."""
    panel = random_panel(rng, [n_bars])
    return RunInputs(panel, random_events(rng, 1, panel), config or SimulationConfig())


def swings(n_swings: int, gain: float, config: SimulationConfig) -> RunInputs:
    """Rises by `gain` over four bars, then falls by as much; held through every rise."""
    rise = (1 + gain) ** np.linspace(0, 1, 5)
    opens = [100.0, *np.tile(100 * np.concatenate((rise, rise[-2:0:-1])), n_swings)]
    events = {}
    for first in range(1, len(opens), 8):
        events |= {first - 1: LONG_ENTRY, first + 3: LONG_EXIT}
    return run_of(opens, events, config)
