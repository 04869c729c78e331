"""What a trade costs, how much of the equity it uses, and in which direction it may go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from backtest_pipeline.market.errors import InvalidInput


class Direction(StrEnum):
    """Sides that a run may take."""

    LONG = "long"
    SHORT = "short"
    BOTH = "both"


@dataclass(frozen=True)
class CostModel:
    """Costs of a fill.

    Attributes:
        fee_bps: fee in basis points of notional, on each side. 0 is 0.
        slippage_bps: basis points by which a fill is worse than the bar's open.

    Raises:
        InvalidInput: for a negative or non-finite cost, or one of 100 % and more.
    """

    fee_bps: float = 10.0
    slippage_bps: float = 5.0

    def __post_init__(self) -> None:
        for name in ("fee_bps", "slippage_bps"):
            value = getattr(self, name)
            if not math.isfinite(value) or not 0 <= value < 10_000:
                raise InvalidInput(f"{name} must be at least 0 and below 10,000, not {value!r}")


@dataclass(frozen=True)
class FixedFractional:
    """Each entry uses the same fraction of the equity at its fill.

    Attributes:
        fraction: above 0 and at most 1. The fees come out of the same cash, so that a fraction
            of 1 buys as much as the cash pays for.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.fraction) or not 0 < self.fraction <= 1:
            raise InvalidInput(f"fraction must be above 0 and at most 1, not {self.fraction!r}")


@dataclass(frozen=True)
class SimulationConfig:
    """What a run assumes beside its signals.

    Attributes:
        costs: fees and slippage.
        sizing: how much of the equity an entry uses.
        direction: which of the strategy's signals are traded.
        initial_cash: starting equity, in the quote currency of the bars.
    """

    costs: CostModel = CostModel()
    sizing: FixedFractional = FixedFractional()
    direction: Direction = Direction.BOTH
    initial_cash: float = 10_000.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.initial_cash) or self.initial_cash <= 0:
            raise InvalidInput(f"initial_cash must be above 0, not {self.initial_cash!r}")
