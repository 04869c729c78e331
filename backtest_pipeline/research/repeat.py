"""A run that can be repeated with one thing changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig


@dataclass(frozen=True)
class RunInputs:
    """All that a run on one asset follows from; `dataclasses.replace` changes one of it.

    Attributes:
        panel: bars of one asset, with what stops and sizing read.
        events: uint8 `(1, n_rows)`, the run's signals, see `simulation.orders`.
        config: what the run assumes.
    """

    panel: Panel
    events: np.ndarray
    config: SimulationConfig

    def __post_init__(self) -> None:
        if len(self.panel.assets) != 1 or len(self.events) != 1:
            raise InvalidInput(
                "a single run on a single asset can be repeated, not "
                f"{len(self.events)} runs on {len(self.panel.assets)} assets"
            )

    def simulated(self) -> BatchResult:
        """The run."""
        return simulate_batch(self.panel, self.events, self.config)

    @property
    def total_return(self) -> float:
        """What the run comes to, a fraction."""
        return float(self.simulated().metrics["total_return"][0])
