"""What can be asked for: one typed spec for each use case, whoever asks.

The service takes specs as bodies, jobs store them, command lines and Dagster's launchpad are made
of their fields (`pipeline.spec_options`), and Python passes them to `execute`. A field is declared
here or in the class of `simulation` that it configures, once, with its default, its unit and its
description. Whether names and values make sense on the stored data is found out when it is
executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_type_hints

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
    create_model,
)

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.symbols import LONGEST_SYMBOL, key_of
from backtest_pipeline.research.validation.choices import Method, Mode, Rebalance
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.sizing import SIZINGS
from backtest_pipeline.simulation.stops import StopRules

Symbol = Annotated[
    str,
    # A control character can be stored nowhere, and a symbol is written without blanks around it.
    Field(
        min_length=1,
        max_length=LONGEST_SYMBOL,
        pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$",
        examples=["S-ALPHA"],
    ),
    AfterValidator(key_of),
]
"""As its source writes it, `BTC/USDT:USDT` too; what is computed and stored goes by its key."""
TimeframeName = Annotated[str, Field(min_length=2, max_length=24, examples=["1D"])]
# A strategy's periods are whole numbers, and 9.0 is none: a parameter stays what it is.
Parameter = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Values = Parameter | Annotated[list[Parameter], Field(min_length=1, max_length=10_000)]
"""What a parameter may be: one value, or those to choose from."""

MOST_SYMBOLS = 1_000
Rates = Annotated[list[tuple[datetime, float]], Field(max_length=100_000)]
_CONFIG = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SpecModel(BaseModel):
    """Unknown fields are errors: one that nobody reads would be a default in disguise."""

    model_config = _CONFIG


class Costs(SpecModel):
    """What trading costs; what is not given is the venue's, or else the default."""

    venue: str | None = Field(
        default=None, description="costs of a venue, for example binance_perp"
    )
    fee_bps: float | None = Field(
        default=None, description=f"fee a side, basis points; else {CostModel.fee_bps:g}"
    )
    slippage_bps: float | None = Field(
        default=None, description=f"slippage a fill, basis points; else {CostModel.slippage_bps:g}"
    )
    funding_bps_day: float | None = Field(
        default=None,
        description="funding, basis points a day: longs pay, shorts receive; "
        f"else {CostModel.funding_bps_day:g}",
    )


def _declared(kind: type) -> dict[str, Any]:
    """The fields of a dataclass of `simulation` as a model takes them."""
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: (hints[f.name], f.default) for f in fields(kind)}


def _model_of(kind: type, **more: Any) -> type[BaseModel]:
    return create_model(kind.__name__, __base__=SpecModel, **more, **_declared(kind))


_STOPS = _model_of(StopRules)
_SIZINGS = {name: _model_of(k, mode=(Literal[name], name)) for name, k in SIZINGS.items()}
if TYPE_CHECKING:
    Stops = Sizing = BaseModel
else:
    Stops = _STOPS
    Sizing = Annotated[Union[tuple(_SIZINGS.values())], Field(discriminator="mode")]  # noqa: UP007

_SIMULATED = _declared(SimulationConfig) | {
    "costs": (Costs, Costs()),
    "sizing": (Sizing, _SIZINGS["fixed"]()),
    "stops": (Stops, _STOPS()),
}
_OfSimulation: type[SpecModel] = create_model("_OfSimulation", __base__=SpecModel, **_SIMULATED)


class SimulationSpec(_OfSimulation):
    """Costs, sizing, stops and all else that a `SimulationConfig` holds, under its names."""

    def config(self) -> SimulationConfig:
        """The same as the simulation takes it.

        Raises:
            UnknownName, InvalidInput: for what makes no sense, and why.
        """
        given = {name: getattr(self, name) for name in _SIMULATED}
        sizing = given["sizing"].model_dump()
        return SimulationConfig(
            **given
            | {
                "costs": CostModel.of(**given["costs"].model_dump()),
                "sizing": SIZINGS[sizing.pop("mode")](**sizing),
                "stops": StopRules(**given["stops"].model_dump()),
            }
        )


class _OnStrategy(SimulationSpec):
    strategy: str | None = Field(
        default=None,
        max_length=64,
        description="a strategy, in full or by its first word; ema_crossover where none is given",
        examples=["ema_crossover"],
    )
    timeframe: TimeframeName = Field(default="1D", description="length of the bars")
    start: date | None = Field(
        default=None, description="first UTC day that is traded", examples=["2022-01-01"]
    )
    end: date | None = Field(default=None, description="UTC day after the last that is traded")
    exchange: Literal["", "binance"] = Field(
        default="", description="where bars come from; empty for the source of the store"
    )
    use_cache: bool = Field(
        default=True,
        validation_alias=AliasChoices("use_cache", "useCache"),
        description="whether cached bars of an exchange are used",
    )
    funding: str | dict[Symbol, Rates] | None = Field(
        default=None,
        description="funding rates by symbol, [stamp, fraction of notional] each, in place of the "
        "flat rate; or the hash under which an earlier run stored them",
    )


class _OnPreset(_OnStrategy):
    preset: str | None = Field(
        default=None,
        max_length=100,
        description="a registered preset, for example ema_9_21, in place of strategy and params",
    )
    params: dict[str, Parameter | None] = Field(
        default={},
        description="parameters of the strategy; its defaults where not given, null is off",
        examples=[{"fast": 9, "slow": 21}],
    )


class RunSpec(_OnPreset):
    """A backtest of one strategy on one symbol."""

    kind: Literal["run"] = "run"
    symbol: Symbol = Field(description="the coin or pair that is traded")
    benchmark: Symbol = Field(
        default="asset",
        description="what it is compared with: asset (buy and hold), cash, universe, or another "
        "symbol",
    )
    bands: bool = Field(
        default=False,
        description="also 90 % bootstrap intervals of Sharpe, return and drawdown",
    )


class RobustnessSpec(RunSpec):
    """A backtest, and how far its result can be trusted; docs/robustness.md."""

    kind: Literal["robustness"] = "robustness"  # pyright: ignore[reportIncompatibleVariableOverride]
    draws: int = Field(
        default=1000, ge=1, le=10_000, description="repetitions of each random method"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="of the random numbers")


class WalkForwardSpec(_OnStrategy):
    """Parameters chosen on training windows, and traded on the bars after each."""

    kind: Literal["walkforward"] = "walkforward"
    symbol: Symbol = Field(description="the coin or pair that is traded")
    params: dict[str, Values] = Field(
        default={},
        description="values to choose from, by parameter; a range of its own where not given",
        examples=[{"fast": [5, 10, 20], "slow": [50, 100]}],
    )
    train_days: float = Field(default=365, gt=0, description="days of a training window")
    test_days: float = Field(default=90, gt=0, description="days of a test window")
    step_days: float | None = Field(
        default=None,
        gt=0,
        description="days from one test to the next; default: the length of a test",
    )
    dates: list[tuple[date, date, date]] = Field(
        default=[],
        max_length=10_000,
        description="in place of days: start of training, start and end of the test of each fold",
    )
    mode: Mode = Field(
        default="rolling", description="training windows: rolling, expanding or anchored"
    )
    purge_bars: int = Field(default=0, ge=0, description="bars left out before each test")
    embargo: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="fraction of the training bars left out before a test, beside the purge",
    )
    objective: str = Field(
        default="sharpe",
        max_length=200,
        description="what is sought: a metric, composite, or weights: sharpe=1,calmar=0.5",
    )
    search: Method = Field(
        default="auto", description="how values are searched: auto, grid, random or tpe"
    )
    max_combinations: int | None = Field(
        default=None, ge=1, description="BACKTEST_OPTIMIZER_MAX_COMBINATIONS where not given"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="of a random or tpe search")


class SweepSpec(_OnStrategy):
    """Every combination of a strategy's parameters on one symbol."""

    kind: Literal["optimize"] = "optimize"
    symbol: Symbol = Field(description="the coin or pair that is traded")
    params: dict[str, Values] = Field(
        default={},
        description="values to try, by parameter; a range of its own where not given",
        examples=[{"fast": [5, 10, 15, 20], "slow": [30, 60, 90, 120]}],
    )
    metric: str = Field(
        default="sharpe", max_length=64, description="a metric of docs/metrics.md to rank by"
    )
    top: int = Field(default=10, ge=1, le=100, description="combinations to list, the best first")
    max_combinations: int | None = Field(
        default=None, ge=1, description="BACKTEST_OPTIMIZER_MAX_COMBINATIONS where not given"
    )


class PortfolioSpec(_OnPreset):
    """One strategy on several symbols, and the capital spread over them."""

    kind: Literal["portfolio"] = "portfolio"
    symbols: list[Symbol] = Field(
        min_length=1, max_length=MOST_SYMBOLS, description="the coins or pairs that are traded"
    )
    scheme: str = Field(
        default="equal_weight",
        max_length=64,
        description="how capital is spread: equal_weight, inverse_volatility, hrp, "
        "minimum_variance or cvar",
    )
    weights: dict[Symbol, float] | None = Field(
        default=None, description="in place of a scheme: fractions that sum to 1, by symbol"
    )
    rebalance: Rebalance = Field(
        default="monthly", description="when weights are set anew: weekly, monthly or quarterly"
    )
    lookback: int = Field(
        default=90, ge=2, le=10_000, description="days from which weights are estimated"
    )
    max_weight: float = Field(
        default=1.0, description="largest weight of a symbol, a fraction of equity"
    )


class RefreshSpec(SpecModel):
    """Bars, features, signals and backtests of these partitions, brought up to date."""

    kind: Literal["refresh"] = "refresh"
    symbols: list[Symbol] = Field(min_length=1, max_length=MOST_SYMBOLS)
    timeframes: list[TimeframeName] = Field(min_length=1, max_length=100)
    full_rebuild: bool = Field(default=False, description="compute also what has not changed")


ExecutableSpec = RunSpec | WalkForwardSpec | SweepSpec | PortfolioSpec
"""What `execute` computes, and the service and jobs with it."""
Spec = ExecutableSpec | RefreshSpec


class JobSpec(SpecModel):
    """A spec that may take long, for one symbol and timeframe or for many."""

    spec: Annotated[Spec, Field(discriminator="kind")]
    symbols: list[Symbol] = Field(
        default=[], max_length=MOST_SYMBOLS, description="symbols, in place of the spec's own"
    )
    timeframes: list[TimeframeName] = Field(
        default=[], max_length=100, description="timeframes, in place of the spec's own"
    )
    timeout_s: int = Field(default=3600, ge=300, le=14_400, description="seconds")


_S = TypeVar("_S", bound=SpecModel)
_executable: TypeAdapter[ExecutableSpec] = TypeAdapter(
    Annotated[ExecutableSpec, Field(discriminator="kind")]
)


def spec_of(values: Mapping[str, Any]) -> ExecutableSpec:
    """The spec of the use case that `kind` names, `run` where it is not given.

    Raises:
        UnknownName, InvalidInput: naming each field that is unknown, missing or wrong.

    Examples:
        >>> spec_of({"symbol": "BTC", "strategy": "rsi"}).kind
        'run'
    """
    try:
        return _executable.validate_python({"kind": "run", **values})
    except ValidationError as error:
        raise invalid_spec(error) from error


def checked(kind: type[_S], values: Mapping[str, Any]) -> _S:
    """A spec of this class; errors as `spec_of`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise invalid_spec(error, kind) from error


def invalid_spec(
    error: ValidationError, kind: type[SpecModel] | None = None
) -> InvalidInput | UnknownName:
    """What is wrong with a spec, a sentence a field."""
    problems: list[UnknownName | str] = []
    for part in error.errors():
        where = [str(at) for at in part["loc"] if at not in _TAGS]
        field = where[-1] if where else "spec"
        choices = re.findall("'([^']*)'", part["msg"])
        if part["type"] == "extra_forbidden":
            problems.append(UnknownName("field", field, _fields_beside(part["loc"], kind)))
        elif part["type"] in ("literal_error", "enum"):
            problems.append(UnknownName(field, str(part["input"]), choices))
        elif part["type"] == "union_tag_invalid":
            tag, _, *known = choices
            problems.append(UnknownName(field, tag, known))
        elif part["type"] == "missing":
            problems.append(f"{'.'.join(where)} is missing")
        else:
            message = re.sub("^(Value error, |Input should be )", "", part["msg"])
            must = f"must be {message}" if message != part["msg"] else message
            problems.append(f"{'.'.join(where) or field} {must}, not {part['input']!r}")
    if len(problems) == 1 and isinstance(problems[0], UnknownName):
        return problems[0]
    return InvalidInput("; ".join(map(str, problems)))


def _fields_beside(loc: tuple[int | str, ...], kind: type[SpecModel] | None) -> set[str]:
    """The fields that there are in the place of one that there is not."""
    kinds: tuple[type[BaseModel], ...] = (RunSpec, WalkForwardSpec, SweepSpec, PortfolioSpec)
    parts = {"costs": Costs, "stops": _STOPS, **_SIZINGS}
    if len(loc) > 1 and loc[-2] in parts:
        kinds = (parts[str(loc[-2])],)
    elif kind is not None:
        kinds = (kind,)
    return {name for one in kinds for name in one.model_fields} - {"kind"}


_TAGS = {
    "run",
    "walkforward",
    "optimize",
    "portfolio",
    "refresh",
    *_SIZINGS,
}  # of unions in a `loc`
