"""When a position is left without a signal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.trading.bounds import require_number, require_whole


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

    Raises:
        InvalidInput: for a value that is not above 0, or a loss of 100 % and more.
    """

    stop_loss: Annotated[
        float | None, Field(description="fraction of the entry price: 0.05 is 5 % against it")
    ] = None
    take_profit: Annotated[
        float | None, Field(description="fraction of the entry price, in its favour")
    ] = None
    trailing: Annotated[
        float | None, Field(description="fraction of the best price since the entry, against it")
    ] = None
    trailing_atr: Annotated[float | None, Field(description="the same, in average true ranges")] = (
        None
    )
    atr_period: Annotated[int, Field(description="bars of Wilder's average true range")] = 14
    max_bars: Annotated[
        int | None, Field(description="bars after which the position is closed at the next open")
    ] = None

    @property
    def any(self) -> bool:
        """Whether there is any rule at all."""
        rules = (self.stop_loss, self.take_profit, self.trailing, self.trailing_atr, self.max_bars)
        return any(rule is not None for rule in rules)

    def __post_init__(self) -> None:
        for name in ("stop_loss", "trailing"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), above=0, below=1)
        for name in ("take_profit", "trailing_atr"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), above=0)
        require_whole("atr_period", self.atr_period, least=2)
        if self.max_bars is not None:
            require_whole("max_bars", self.max_bars, least=1)
