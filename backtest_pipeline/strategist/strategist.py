"""The contract of strategists, and the ones that there are by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategist.known import Known, Occasion
from backtest_pipeline.strategist.proposal import Proposal


class Strategist(ABC):
    """Turns what is known at an instant into a plan: a pure function of what is known.

    Attributes:
        name: as configurations and stored plans name it.
        reads: columns that it reads of the panels, besides open, high, low, close and volume.
        model: `PROVIDER:MODEL` of the language model that it asks; None where it asks none.
    """

    name: str
    model: str | None = None
    reads: tuple[str, ...] = ()

    @abstractmethod
    def plan(self, known: Known) -> Proposal:
        """The plan from the known instant on.

        Args:
            known: what is known.
        """


class StateStrategist(Strategist):
    """A strategist whose plans follow from one number at each instant, and from no account.

    A history skips the instants at which that number does not change.
    """

    @abstractmethod
    def states(self, panels: Mapping[str, Panel], instants_us: np.ndarray) -> np.ndarray:
        """What its plans follow from, at each instant: equal numbers give the same terms.

        Args:
            panels: as `known_at` takes them.
            instants_us: int64 `(n,)`, microseconds since 1970 UTC.

        Returns:
            int64 `(n,)`, each by the bars up to its instant alone.
        """

    @abstractmethod
    def plan_in(self, state: int, occasion: Occasion) -> Proposal:
        """The plan in a state."""

    def plan(self, known: Known) -> Proposal:
        """The plan from the known instant on; see `Strategist.plan`."""
        instant = np.array([known.occasion.instant_us])
        return self.plan_in(int(self.states(known.panels, instant)[0]), known.occasion)
