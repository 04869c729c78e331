"""Stop rules: exits without an exit signal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
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


DISTANCES = MappingProxyType(
    {"stop_loss": 1.0, "take_profit": None, "trailing": 1.0, "trailing_atr": None}
)
"""What each distance of a stop or target, which is above 0, is below; None for no bound."""
Expression = Annotated[str, Field(max_length=2000)]


@dataclass(frozen=True)
class StopRules:
    """Price levels and holding time at which a position is closed; None turns a rule off.

    A distance is a number, or an expression of docs/rules.md with a value at each bar: a position
    has the value of its signal's bar, and the entry is blocked where that is undefined or out of
    bounds.

    Raises:
        InvalidInput: for a value of 0 or less, or a stop of 100 % or more.

    Examples:
        >>> StopRules(stop_loss=0.05, take_profit=0.1).stop_loss
        0.05
        >>> StopRules(stop_loss="2 * atr_14 / close").expressions
        {'stop_loss': '2 * atr_14 / close'}
    """

    stop_loss: Annotated[
        float | Expression | None,
        Field(
            description="loss from the entry price, a fraction: 0.05 is 5 %; a number, or an "
            "expression of the signal's bar as docs/rules.md has them"
        ),
    ] = None
    take_profit: Annotated[
        float | Expression | None,
        Field(description="gain from the entry price, a fraction; or an expression"),
    ] = None
    trailing: Annotated[
        float | Expression | None,
        Field(description="loss from the best price since entry, a fraction; or an expression"),
    ] = None
    trailing_atr: Annotated[
        float | Expression | None,
        Field(
            description="loss from the best price since entry, in average true ranges; or an "
            "expression"
        ),
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

    @property
    def expressions(self) -> dict[str, str]:
        """The texts of those distances that are expressions, by their names."""
        given = {name: getattr(self, name) for name in DISTANCES}
        return {name: value for name, value in given.items() if isinstance(value, str)}

    def __post_init__(self) -> None:
        for name, most in DISTANCES.items():
            given = _as_number(getattr(self, name))
            object.__setattr__(self, name, given)
            if given is not None and not isinstance(given, str):
                require_number(name, given, above=0, below=most)
        require_whole("atr_period", self.atr_period, least=2)
        if self.max_bars is not None:
            require_whole("max_bars", self.max_bars, least=1)


def _as_number(given: object) -> object:
    """The number where a text is one; anything else as it is."""
    try:
        return float(given) if isinstance(given, str) else given
    except ValueError:
        return given
