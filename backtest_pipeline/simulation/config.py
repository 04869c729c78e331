"""What a run assumes beside its signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import get_args

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.bounds import require_number, require_whole
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.sizing import FixedFractional, Sizing, with_sizing_columns
from backtest_pipeline.simulation.stops import IntrabarOrder, StopRules


class Direction(StrEnum):
    """Sides that a run may take."""

    LONG = "long"
    SHORT = "short"
    BOTH = "both"

    @staticmethod
    def of(name: str) -> Direction:
        """The direction of this name; raises UnknownName where there is none."""
        if name not in list(Direction):
            raise UnknownName("direction", name, list(Direction))
        return Direction(name)


_KINDS = {"costs": (CostModel,), "sizing": get_args(Sizing), "stops": (StopRules,)}


@dataclass(frozen=True)
class SimulationConfig:
    """What a run assumes beside its signals; docs/simulation.md says what each does.

    Attributes:
        costs: fees, slippage, funding.
        sizing: how much of the equity an entry uses.
        direction: which of the strategy's signals are traded.
        initial_cash: starting equity, in the quote currency of the bars.
        stops: when a position is left without a signal.
        max_leverage: gross exposure that entries may bring the account to, in equities.
        lot_size: units that a position is a multiple of, one for all or by symbol; 0 is any.
        min_notional: smallest entry in the quote currency, one for all or by symbol.
        delay_bars: bars that a signal is late beyond the next open.
        intrabar: which of a stop and a target comes first where nothing tells.
        risk_free: return of cash a day, a fraction, that the metrics are in excess of.
    """

    costs: CostModel = field(default_factory=CostModel)
    sizing: Sizing = field(default_factory=FixedFractional)
    direction: Direction = Direction.BOTH
    initial_cash: float = 10_000.0
    stops: StopRules = field(default_factory=StopRules)
    max_leverage: float = 1.0
    lot_size: float | Mapping[str, float] = 0.0
    min_notional: float | Mapping[str, float] = 0.0
    delay_bars: int = 0
    intrabar: IntrabarOrder = IntrabarOrder.STOP_FIRST
    risk_free: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", Direction.of(self.direction))
        object.__setattr__(self, "intrabar", IntrabarOrder.of(self.intrabar))
        self._require_kinds()
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
        require_number("risk_free", self.risk_free)

    def _require_kinds(self) -> None:
        for name, kinds in _KINDS.items():
            if not isinstance(getattr(self, name), kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise InvalidInput(f"{name} must be {wanted}, not {getattr(self, name)!r}")


def with_config_columns(panel: Panel, config: SimulationConfig) -> Panel:
    """The panel with the indicators that stops and sizing read.

    To be called before a panel is cut to a window: they remember the bars before it.
    """
    panel = with_sizing_columns(panel, config.sizing)
    if config.stops.trailing_atr is None:
        return panel
    return with_indicators(panel, [f"atr_{config.stops.atr_period}"])
