"""Assumptions of a run: costs, sizing, stops, direction and limits of the account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Annotated, get_args

from pydantic import Field

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.trading.bounds import require_number, require_whole
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.direction import Direction
from backtest_pipeline.trading.engine_names import EngineName
from backtest_pipeline.trading.sizing import ByExpression, FixedFractional, Sizing
from backtest_pipeline.trading.stops import IntrabarOrder, StopRules


@dataclass(frozen=True)
class PositionRules:
    """What closes a position without a signal, delays the next entry, and sizes each entry."""

    stops: StopRules
    cooldown_bars: int = 0
    sizing: Sizing = field(default_factory=FixedFractional)

    @property
    def expressions(self) -> dict[str, str]:
        """The texts of what is an expression of the signal's bar: distances of stops, sizing."""
        sizing = self.sizing
        sized = {"sizing": sizing.fraction} if isinstance(sizing, ByExpression) else {}
        return self.stops.expressions | sized


_MOST_A_DAY = 0.01  # a higher risk-free return per day is an annual one, or a percentage
_KINDS = {"costs": (CostModel,), "sizing": (*get_args(Sizing), NoneType), "stops": (StopRules,)}


@dataclass(frozen=True)
class SimulationConfig:
    """Costs, sizing, stops and account limits of a run; docs/simulation.md explains each.

    Specs, the command line and Dagster's launchpad show the descriptions of the fields.

    Attributes:
        costs: fees, slippage, funding.
        sizing: how much of the equity an entry uses; None for the sizing of the strategy, or all of
            it where the strategy has none.
        stops: rules that close a position without an exit signal.
    """

    costs: CostModel = field(default_factory=CostModel)
    sizing: Sizing | None = None
    direction: Annotated[Direction, Field(description="sides to trade: long, short or both")] = (
        Direction.BOTH
    )
    initial_cash: Annotated[
        float, Field(description="starting equity, in the quote currency of the bars")
    ] = 10_000.0
    stops: StopRules = field(default_factory=StopRules)
    cooldown_bars: Annotated[
        int, Field(description="bars without an entry, from the one that a position closes in")
    ] = 0
    max_leverage: Annotated[
        float, Field(description="largest gross exposure after an entry, as a multiple of equity")
    ] = 1.0
    lot_size: Annotated[
        float | Mapping[str, float],
        Field(description="positions are whole multiples of this many units, or by symbol; 0: any"),
    ] = 0.0
    min_notional: Annotated[
        float | Mapping[str, float],
        Field(description="smallest value of an entry, in the quote currency, or by symbol"),
    ] = 0.0
    delay_bars: Annotated[
        int, Field(description="bars to delay each fill beyond the next open")
    ] = 0
    intrabar: Annotated[
        IntrabarOrder,
        Field(description="order of stop and target hit in one bar: stop_first or target_first"),
    ] = IntrabarOrder.STOP_FIRST
    risk_free: Annotated[
        float, Field(description="risk-free return per day, a fraction: 4 % a year is 0.0001")
    ] = 0.0
    engine: Annotated[
        EngineName,
        Field(
            description="who simulates: account, or vectorbt for what it can hold, "
            "see docs/vectorbt.md"
        ),
    ] = EngineName.ACCOUNT

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", Direction.of(self.direction))
        object.__setattr__(self, "intrabar", IntrabarOrder.of(self.intrabar))
        object.__setattr__(self, "engine", EngineName.of(self.engine))
        self._require_kinds()
        self._take_constants()
        for name in ("initial_cash", "max_leverage"):
            require_number(name, getattr(self, name), above=0)
        if isinstance(self.sizing, FixedFractional) and self.sizing.fraction > self.max_leverage:
            raise InvalidInput(
                f"fraction must be at most max_leverage ({self.max_leverage!r}), "
                f"not {self.sizing.fraction!r}"
            )
        for name in ("lot_size", "min_notional"):
            given = getattr(self, name)
            for value in given.values() if isinstance(given, Mapping) else (given,):
                require_number(name, value, least=0)
        require_whole("delay_bars", self.delay_bars, least=0)
        require_whole("cooldown_bars", self.cooldown_bars, least=0)
        require_number("risk_free", self.risk_free, above=-_MOST_A_DAY, below=_MOST_A_DAY)

    @property
    def rules(self) -> PositionRules:
        """Its stops, its cooldown and its sizing."""
        return PositionRules(self.stops, self.cooldown_bars, self.sizing or FixedFractional())

    def _take_constants(self) -> None:
        """Numbers in place of expressions that are numbers, so that both are the same run."""
        if self.rules.expressions:
            # Help texts are made from these fields, and need not wait for what reads rules.
            from backtest_pipeline.strategies.rules.expressions import plain_sizing, plain_stops

            object.__setattr__(self, "stops", plain_stops(self.stops))
            object.__setattr__(self, "sizing", self.sizing and plain_sizing(self.sizing))

    def _require_kinds(self) -> None:
        for name, kinds in _KINDS.items():
            if not isinstance(getattr(self, name), kinds):
                allowed = " or ".join(kind.__name__ for kind in kinds)
                raise InvalidInput(f"{name} must be {allowed}, not {getattr(self, name)!r}")
