"""What a cross-section is asked for, the same for every caller; see `pipeline.specs`."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, create_model

from backtest_pipeline.pipeline.specs import MOST_SYMBOLS, Costs, SpecModel
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.fields import Symbol, TimeframeName, declared_fields

_DECLARED = declared_fields(SimulationConfig)
_HELD = {name: _DECLARED[name] for name in ("initial_cash", "risk_free")}
_OfAccount: type[SpecModel] = create_model("_OfAccount", __base__=SpecModel, **_HELD)


class CrossSectionSpec(_OfAccount):
    """A cross-section: a universe is ranked at each rebalance, and its ends are held in one book.

    It is computed from stored features. The strategy says whom to hold and how much.
    """

    kind: Literal["cross_section"] = "cross_section"
    strategy: str | None = Field(
        default=None,
        max_length=64,
        description="name of a cross-section in the folder of strategies",
        examples=["momentum"],
    )
    rules: str | None = Field(
        default=None,
        max_length=100_000,
        description="a cross-section in TOML in place of a name, see docs/cross-section.md",
        examples=['kind = "cross_section"\nname = "up"\nscore = "rsi_14"\ncount = 5'],
    )
    symbols: list[Symbol] = Field(
        default=[],
        max_length=MOST_SYMBOLS,
        description="the universe; all assets with stored features if not given, synthetic ones "
        "only where there are no others",
    )
    timeframe: TimeframeName = Field(default="1D", description="length of the bars")
    start: date | None = Field(
        default=None, description="first UTC day to trade", examples=["2022-01-01"]
    )
    end: date | None = Field(default=None, description="UTC day after the last day to trade")
    costs: Costs = Costs()

    def config(self) -> SimulationConfig:
        """The spec as a `SimulationConfig`.

        Raises:
            UnknownName, InvalidInput: for invalid settings, with the reason.
        """
        return SimulationConfig(
            costs=CostModel.of(**self.costs.model_dump()),
            **{name: getattr(self, name) for name in _HELD},
        )
