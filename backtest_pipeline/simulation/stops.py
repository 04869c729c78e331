"""When a position is left without a signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from backtest_pipeline.market.errors import InvalidInput, UnknownName


class IntrabarOrder(StrEnum):
    """Which of a stop and a target comes first where both lie in one bar and nothing tells."""

    STOP_FIRST = "stop_first"
    TARGET_FIRST = "target_first"

    @staticmethod
    def of(name: str) -> IntrabarOrder:
        """The order of this name; raises UnknownName where there is none."""
        if name not in list(IntrabarOrder):
            raise UnknownName("intrabar order", name, list(IntrabarOrder))
        return IntrabarOrder(name)


@dataclass(frozen=True)
class StopRules:
    """Levels and times at which a position is closed; None is no such rule.

    Attributes:
        stop_loss: fraction of the entry price, against the position.
        take_profit: fraction of the entry price, in its favour.
        trailing: fraction of the best price since the entry, against the position.
        trailing_atr: the same in average true ranges.
        atr_period: bars of Wilder's average.
        max_bars: bars after which the position leaves at the next open.

    Raises:
        InvalidInput: for a value that is not above 0, or a loss of 100 % and more.
    """

    stop_loss: float | None = None
    take_profit: float | None = None
    trailing: float | None = None
    trailing_atr: float | None = None
    atr_period: int = 14
    max_bars: int | None = None

    def __post_init__(self) -> None:
        for name in ("stop_loss", "take_profit", "trailing", "trailing_atr"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"{name} must be above 0, not {value!r}")
        for name in ("stop_loss", "trailing"):
            value = getattr(self, name)
            if value is not None and value >= 1:
                raise InvalidInput(f"{name} is a fraction and must be below 1, not {value!r}")
        for name, least in (("atr_period", 2), ("max_bars", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise InvalidInput(
                    f"{name} must be a whole number of at least {least}, not {value!r}"
                )
