"""What can be asked for: typed requests of the service, of jobs, and of programs.

A question says everything that decides its answer; what it leaves out has the default that is
shown. Whether names and values make sense is found out when it is answered.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, create_model

from backtest_pipeline.market.partitions import SYMBOL_PATTERN
from backtest_pipeline.pipeline.identity import Asked, Window
from backtest_pipeline.research.optimizer import Method
from backtest_pipeline.research.splits import Mode
from backtest_pipeline.simulation.assumptions import SIZINGS, costs_of
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.stops import StopRules

Symbol = Annotated[str, Field(pattern=rf"^{SYMBOL_PATTERN}$", examples=["S-ALPHA"])]
TimeframeName = Annotated[str, Field(min_length=2, max_length=24, examples=["1D"])]
Number = Annotated[float, Field(allow_inf_nan=False)]
# A strategy's periods are whole numbers, and 9.0 is none: a parameter stays what it is.
Parameter = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Values = Parameter | Annotated[list[Parameter], Field(min_length=1, max_length=10_000)]
"""What a parameter may be: one value, or those to choose from."""

MOST_SYMBOLS = 1_000
_STRICT = ConfigDict(extra="forbid", frozen=True)


class _Strict(BaseModel):
    """Unknown fields are errors: one that nobody reads would be a default in disguise."""

    model_config = _STRICT


class Costs(_Strict):
    """What trading costs; what is not given is the venue's, or else the usual."""

    venue: str | None = Field(
        default=None, description="costs of a venue, for example binance_perp"
    )
    fee_bps: Number | None = Field(default=None, description="fee a side, in basis points")
    slippage_bps: Number | None = Field(default=None, description="slippage, in basis points")
    funding_bps_day: Number | None = Field(
        default=None, description="funding in basis points a day: longs pay, shorts receive"
    )


def _model_of(kind: type, **more: Any) -> type[BaseModel]:
    """A request model with the fields of a dataclass of `simulation`."""
    hints = get_type_hints(kind)
    own: dict[str, Any] = {f.name: (hints[f.name], f.default) for f in fields(kind)}
    return create_model(kind.__name__, __config__=_STRICT, **{**more, **own})


_STOPS = _model_of(StopRules)
_SIZINGS = {name: _model_of(k, mode=(Literal[name], name)) for name, k in SIZINGS.items()}
if TYPE_CHECKING:
    Stops = Sizing = BaseModel
else:
    Stops = _STOPS
    Sizing = Annotated[Union[tuple(_SIZINGS.values())], Field(discriminator="mode")]  # noqa: UP007


class Assumptions(_Strict):
    """Which bars are traded, and what a simulation assumes of them."""

    start: date | None = Field(default=None, description="first UTC day", examples=["2022-01-01"])
    end: date | None = Field(default=None, description="UTC day after the last")
    exchange: Literal["", "binance"] = Field(
        default="",
        description="where bars come from; empty for the source that the store is fed from",
    )
    use_cache: bool = Field(default=True, description="whether an exchange's kept bars are used")
    costs: Costs = Costs()
    sizing: Sizing = _SIZINGS["fixed"]()
    stops: Stops = _STOPS()
    direction: Direction = Direction.BOTH
    initial_cash: Number = 10_000.0
    max_leverage: Number = 1.0
    lot_size: Number = 0.0
    min_notional: Number = 0.0
    delay_bars: int = 0

    def asked(self, benchmark: str = "asset") -> Asked:
        """The same as the pipeline takes it.

        Raises:
            UnknownName, InvalidInput: for what makes no sense, and why.
        """
        sizing = self.sizing.model_dump()
        config = SimulationConfig(
            costs=costs_of(**self.costs.model_dump()),
            sizing=SIZINGS[sizing.pop("mode")](**sizing),
            stops=StopRules(**self.stops.model_dump()),
            direction=self.direction,
            initial_cash=self.initial_cash,
            max_leverage=self.max_leverage,
            lot_size=self.lot_size,
            min_notional=self.min_notional,
            delay_bars=self.delay_bars,
        )
        return Asked(config, Window(self.start, self.end), benchmark)


class _OfOneStrategy(Assumptions):
    timeframe: TimeframeName = "1D"
    strategy: str = Field(
        max_length=64, description="a signal type, or its first word", examples=["ema_crossover"]
    )


class BacktestQuestion(_OfOneStrategy):
    """One strategy on one asset."""

    kind: Literal["run"] = "run"
    symbol: Symbol
    params: dict[str, Parameter] = Field(default={}, examples=[{"fast": 9, "slow": 21}])
    benchmark: str = Field(
        default="asset",
        max_length=32,
        description="asset, cash, universe or another asset's symbol",
    )


class WalkForwardQuestion(_OfOneStrategy):
    """Parameters chosen on training windows, and traded on the bars after each."""

    kind: Literal["walkforward"] = "walkforward"
    symbol: Symbol
    params: dict[str, Values] = Field(
        default={},
        description="values to choose from, by parameter",
        examples=[{"fast": [5, 10, 20], "slow": [50, 100]}],
    )
    train_days: Number = Field(default=365, gt=0)
    test_days: Number = Field(default=90, gt=0)
    step_days: Number | None = Field(default=None, gt=0)
    mode: Mode = "rolling"
    purge_bars: int = Field(default=0, ge=0)
    embargo: Number = Field(default=0.01, ge=0, lt=1)
    objective: str = Field(default="sharpe", max_length=200)
    search: Method = "auto"
    seed: int = Field(default=0, ge=0, lt=2**31)


class OptimizeQuestion(_OfOneStrategy):
    """Every combination of a strategy's parameters on one asset."""

    kind: Literal["optimize"] = "optimize"
    symbol: Symbol
    params: dict[str, Values] = Field(
        default={}, examples=[{"fast": [5, 10, 15, 20], "slow": [30, 60, 90, 120]}]
    )
    metric: str = Field(default="sharpe", max_length=64, description="a metric of docs/metrics.md")
    top: int = Field(default=10, ge=1, le=100, description="combinations to name, the best first")


class PortfolioQuestion(_OfOneStrategy):
    """One strategy on several assets, and the capital spread over them."""

    kind: Literal["portfolio"] = "portfolio"
    symbols: list[Symbol] = Field(min_length=1, max_length=MOST_SYMBOLS)
    params: dict[str, Parameter] = Field(default={}, examples=[{"fast": 9, "slow": 21}])
    scheme: str = Field(default="equal_weight", max_length=64)
    weights: dict[Symbol, Number] | None = Field(
        default=None, description="instead of a scheme: fractions that sum to 1, by symbol"
    )
    rebalance: Literal["weekly", "monthly", "quarterly"] = "monthly"
    lookback: int = Field(default=90, ge=2, le=10_000)
    max_weight: Number = 1.0


class RefreshQuestion(_Strict):
    """Bars, features, signals and backtests of these partitions, brought up to date."""

    kind: Literal["refresh"] = "refresh"
    symbols: list[Symbol] = Field(min_length=1, max_length=MOST_SYMBOLS)
    timeframes: list[TimeframeName] = Field(min_length=1, max_length=100)
    full_rebuild: bool = False


Question = (
    BacktestQuestion | WalkForwardQuestion | PortfolioQuestion | OptimizeQuestion | RefreshQuestion
)


class JobQuestion(_Strict):
    """A question that may take long, for one asset and timeframe or for many."""

    question: Annotated[Question, Field(discriminator="kind")]
    symbols: list[Symbol] = Field(
        default=[], max_length=MOST_SYMBOLS, description="assets to ask it of, in place of its own"
    )
    timeframes: list[TimeframeName] = Field(
        default=[], max_length=100, description="timeframes to ask it at, in place of its own"
    )
    timeout_s: int = Field(default=3600, ge=300, le=14_400)
