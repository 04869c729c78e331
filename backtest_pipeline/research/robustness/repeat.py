"""A run that can be repeated with one thing changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates


@dataclass(frozen=True)
class RunInputs:
    """All that a run on one asset follows from; `dataclasses.replace` changes one of it.

    Attributes:
        panel: bars of one asset, with what stops and sizing read.
        events: uint8 `(1, n_rows)`, the run's signals, see `simulation.orders`.
        config: what the run assumes.
        funding: rates by symbol, in place of the flat rate of the costs.
        finer: bars of the same asset at a finer timeframe, which tell a stop from a target.
    """

    panel: Panel
    events: np.ndarray
    config: SimulationConfig
    funding: FundingRates | None = None
    finer: Panel | None = None

    def __post_init__(self) -> None:
        if len(self.panel.assets) != 1 or len(self.events) != 1:
            raise InvalidInput(
                "a single run on a single asset can be repeated, not "
                f"{len(self.events)} runs on {len(self.panel.assets)} assets"
            )

    def simulated(self, events: np.ndarray | None = None) -> BatchResult:
        """The run, or runs with other signals, uint8 `(n_runs, n_rows)`, and all else as it is.

        They are held against cash, since no doubt is about a benchmark.
        """
        return simulate_batch(
            self.panel,
            self.events if events is None else events,
            self.config,
            funding=self.funding,
            finer=self.finer,
            benchmark=np.full(len(self.panel), self.config.initial_cash),
        )

    @property
    def total_return(self) -> float:
        """Total return of the run, a fraction."""
        return float(self.simulated().metrics["total_return"][0])
