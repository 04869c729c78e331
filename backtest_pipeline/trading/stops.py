"""Stop rules: exits without an exit signal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.trading.bounds import require_number, require_whole


class IntrabarOrder(StrEnum):
    """Which is hit first if one bar reaches both stop and target and finer bars do not decide."""

    STOP_FIRST = "stop_first"
    TARGET_FIRST = "target_first"

    @staticmethod
    def of(name: str) -> IntrabarOrder:
        """The order with this name; raises UnknownName if there is none."""
        if name not in list(IntrabarOrder):
            raise UnknownName("intrabar order", name, list(IntrabarOrder))
        return IntrabarOrder(name)


@dataclass(frozen=True)
class StopRules:
    """Price levels and holding time at which a position is closed; None turns a rule off.

    Raises:
        InvalidInput: for a value of 0 or less, or a stop of 100 % or more.

    Examples:
        >>> StopRules(stop_loss=0.05, take_profit=0.1).stop_loss
        0.05
    """

    stop_loss: Annotated[
        float | None, Field(description="loss from the entry price, a fraction: 0.05 is 5 %")
    ] = None
    take_profit: Annotated[
        float | None, Field(description="gain from the entry price, a fraction")
    ] = None
    trailing: Annotated[
        float | None, Field(description="loss from the best price since entry, a fraction")
    ] = None
    trailing_atr: Annotated[
        float | None,
        Field(description="loss from the best price since entry, in average true ranges"),
    ] = None
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
