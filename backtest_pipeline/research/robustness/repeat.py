"""A run that can be repeated with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.trading.conditions import Conditions


@dataclass(frozen=True)
class Rule:
    """What gave a run its conditions, to be asked again about other bars.

    Attributes:
        conditions: bars of one or more assets to conditions; computes the features it needs.
        history: the asset's bars before the run's first, which indicators need; may be empty.
    """

    conditions: Callable[[Panel], Conditions]
    history: Panel


@dataclass(frozen=True)
class RunInputs:
    """All inputs of a run on one asset; change one with `dataclasses.replace`.

    Attributes:
        panel: bars of one asset, with the columns that stops and sizing need.
        events: uint8 `(1, n_rows)`, the run's signals; bits as in `simulation.orders`.
        config: the run's assumptions.
        funding: funding rates by symbol; None for the flat rate of the costs.
        finer: bars of the same asset at a finer timeframe, which decide whether stop or target was
            hit first.
        daily: daily bars of the same asset to mark equity by, see `simulation.marks.marks_of`.
        rule: what gave the events; None where it cannot be repeated on other bars.
    """

    panel: Panel
    events: np.ndarray
    config: SimulationConfig
    funding: FundingRates | None = None
    finer: Panel | None = None
    daily: Panel | None = None
    rule: Rule | None = None

    def __post_init__(self) -> None:
        if len(self.panel.assets) != 1 or len(self.events) != 1:
            raise InvalidInput(
                "robustness repeats one run on one asset, not "
                f"{len(self.events)} runs on {len(self.panel.assets)} assets"
            )

    def simulated(self, events: np.ndarray | None = None) -> BatchResult:
        """Simulate the run, or runs with other signals, uint8 `(n_runs, n_rows)`.

        The benchmark is cash: no robustness figure uses one.
        """
        marks = marks_of(self.panel, self.daily)
        return simulate_batch(
            self.panel,
            self.events if events is None else events,
            self.config,
            funding=self.funding,
            finer=self.finer,
            marks=marks,
            benchmark=np.full(len(marks), self.config.initial_cash),
        )

    @property
    def total_return(self) -> float:
        """Total return of the run, a fraction."""
        return float(self.simulated().metrics["total_return"][0])
