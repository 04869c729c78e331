"""Spec models, one per use case, the same for every caller.

The service takes specs as request bodies, jobs store them, options of the command line and
Dagster's launchpad are generated from their fields (`pipeline.spec_options`), and Python passes
them to `execute`. Each field is declared once, here or in the class of `simulation` that it
configures, with its default, unit and description. Names and values are checked against the stored
data only on execution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

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

from backtest_pipeline.market.errors import InvalidInput, StrategyRefused, UnknownName
from backtest_pipeline.market.field_problems import either, field_place, field_problem
from backtest_pipeline.research.validation.choices import Method, Mode, Rebalance
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.fields import (
    Symbol,
    TimeframeName,
    declared_fields,
    model_of,
    one_of,
    sizing_models,
)
from backtest_pipeline.trading.sizing import SIZINGS
from backtest_pipeline.trading.stops import StopRules

# Strict: a period must be an integer, and 9.0 is not converted to one.
Parameter = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Values = Parameter | Annotated[list[Parameter], Field(min_length=1, max_length=10_000)]
"""Values of a parameter: one number, or a list to choose from."""


def _readable(rules: str) -> str:
    """The rules; raises ValueError with the place of what cannot be read."""
    from backtest_pipeline.strategies.own.loading import load_text  # numpy takes long to import

    try:
        load_text(rules)
    except StrategyRefused as error:
        raise ValueError(str(error)) from error
    return rules


MOST_SYMBOLS = 1_000
Rates = Annotated[list[tuple[datetime, float]], Field(max_length=100_000)]
_CONFIG = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SpecModel(BaseModel):
    """Base of all specs; unknown fields are errors, or a typo would silently mean the default."""

    model_config = _CONFIG


class Costs(SpecModel):
    """Trading costs; a cost that is not given is the venue's, or the default without a venue."""

    venue: str | None = Field(default=None, description="venue of the costs, e.g. binance_perp")
    fee_bps: float | None = Field(
        default=None,
        description=f"fee per side, basis points; {CostModel.fee_bps:g} without a venue",
    )
    slippage_bps: float | None = Field(
        default=None,
        description=f"slippage per fill, basis points; {CostModel.slippage_bps:g} without a venue",
    )
    funding_bps_day: float | None = Field(
        default=None,
        description="flat funding rate, basis points per day; longs pay it, shorts receive it; "
        f"{CostModel.funding_bps_day:g} without a venue",
    )


_STOPS = model_of(StopRules, SpecModel)
_SIZINGS = sizing_models(SpecModel)
if TYPE_CHECKING:
    Stops = Sizing = BaseModel
else:
    Stops = _STOPS
    Sizing = one_of(_SIZINGS)

_SIMULATED = declared_fields(SimulationConfig) | {
    "costs": (Costs, Costs()),
    "sizing": (
        Sizing | None,
        Field(
            default=None,
            description="how much of the equity an entry uses; null for the sizing of the "
            "strategy, all of it where that has none",
        ),
    ),
    "stops": (Stops, _STOPS()),
}
_OfSimulation: type[SpecModel] = create_model("_OfSimulation", __base__=SpecModel, **_SIMULATED)
_OF_RANKED = {name: _SIMULATED[name] for name in ("initial_cash", "risk_free")}
_OfRanked: type[SpecModel] = create_model("_OfRanked", __base__=SpecModel, **_OF_RANKED)


class SimulationSpec(_OfSimulation):
    """All fields of a `SimulationConfig` under the same names: costs, sizing, stops and others."""

    def config(self) -> SimulationConfig:
        """The spec as a `SimulationConfig`.

        Raises:
            UnknownName, InvalidInput: for invalid settings, with the reason.
        """
        given = {name: getattr(self, name) for name in _SIMULATED}
        sizing = given["sizing"] and given["sizing"].model_dump()
        return SimulationConfig(
            **given
            | {
                "costs": CostModel.of(**given["costs"].model_dump()),
                "sizing": sizing and SIZINGS[sizing.pop("mode")](**sizing),
                "stops": StopRules(**given["stops"].model_dump()),
            }
        )


class _OnStrategy(SimulationSpec):
    strategy: str | None = Field(
        default=None,
        max_length=64,
        description="name of the strategy, its first word is enough; ema_crossover if not given",
        examples=["ema_crossover"],
    )
    rules: Annotated[str, AfterValidator(_readable)] | None = Field(
        default=None,
        description="rules in TOML in place of a strategy's name, see docs/rules.md",
        examples=['name = "up"\nlong_entry = "close > ema_50"\nlong_exit = "close < ema_50"'],
    )
    timeframe: TimeframeName = Field(default="1D", description="length of the bars")
    start: date | None = Field(
        default=None, description="first UTC day to trade", examples=["2022-01-01"]
    )
    end: date | None = Field(default=None, description="UTC day after the last day to trade")
    exchange: Literal["", "binance"] = Field(
        default="", description="exchange to read bars from; empty for the store's own source"
    )
    use_cache: bool = Field(
        default=True,
        validation_alias=AliasChoices("use_cache", "useCache"),
        description="whether to use cached bars of an exchange",
    )
    funding: str | dict[Symbol, Rates] | None = Field(
        default=None,
        description="funding rates by symbol as [timestamp, fraction of notional] pairs, replacing "
        "the flat rate; or the hash under which an earlier run stored them",
    )


class _OnPreset(_OnStrategy):
    preset: str | None = Field(
        default=None,
        max_length=100,
        description="registered preset instead of strategy and params, for example ema_9_21",
    )
    params: dict[str, Parameter | None] = Field(
        default={},
        description="strategy parameters; defaults if not given, null turns a parameter off",
        examples=[{"fast": 9, "slow": 21}],
    )


class RunSpec(_OnPreset):
    """A backtest of one strategy on one symbol."""

    kind: Literal["run"] = "run"
    symbol: Symbol = Field(description="the coin or pair that is traded")
    benchmark: Symbol = Field(
        default="asset",
        description="benchmark: asset (buy and hold), cash, universe (equal weight of all assets), "
        "or another symbol (buy and hold)",
    )
    bands: bool = Field(
        default=False,
        description="add nominal 90 % bootstrap intervals of Sharpe ratio, return and drawdown",
    )


class RobustnessSpec(RunSpec):
    """A backtest with robustness tests; see docs/robustness.md."""

    kind: Literal["robustness"] = "robustness"  # pyright: ignore[reportIncompatibleVariableOverride]
    draws: int = Field(
        default=1000, ge=1, le=10_000, description="number of draws of each resampling method"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the random numbers")


class WalkForwardSpec(_OnStrategy):
    """A walk-forward: parameters chosen on each training window and traded on the bars after it."""

    kind: Literal["walkforward"] = "walkforward"
    symbol: Symbol = Field(description="the coin or pair that is traded")
    params: dict[str, Values] = Field(
        default={},
        description="values to choose from, by parameter; the strategy's search range if not given",
        examples=[{"fast": [5, 10, 20], "slow": [50, 100]}],
    )
    train_days: float = Field(default=365, gt=0, description="length of a training window, days")
    test_days: float = Field(default=90, gt=0, description="length of a test window, days")
    step_days: float | None = Field(
        default=None,
        gt=0,
        description="days from one test's start to the next; default: the length of a test",
    )
    dates: list[tuple[date, date, date]] = Field(
        default=[],
        max_length=10_000,
        description="folds instead of lengths: start of training, start and end of each test",
    )
    mode: Mode = Field(
        default="expanding", description="training windows: expanding, rolling or anchored"
    )
    flat_starts: bool = Field(
        default=False,
        description="test windows start flat, not with the position that the choice holds by then",
    )
    purge_bars: int = Field(default=0, ge=0, description="bars left out before each test")
    embargo: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="fraction of the training bars left out before each test, beside the purge",
    )
    objective: str = Field(
        default="sharpe",
        max_length=200,
        description="what to maximize: a metric, `composite`, or weights such as "
        "sharpe=1,calmar=0.5",
    )
    search: Method = Field(default="auto", description="search method: auto, grid, random or tpe")
    max_combinations: int | None = Field(
        default=None, ge=1, description="BACKTEST_OPTIMIZER_MAX_COMBINATIONS where not given"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of a random or tpe search")


class SweepSpec(_OnStrategy):
    """A sweep: every combination of a strategy's parameters on one symbol."""

    kind: Literal["optimize"] = "optimize"
    symbol: Symbol = Field(description="the coin or pair that is traded")
    params: dict[str, Values] = Field(
        default={},
        description="values to try, by parameter; the strategy's search range if not given",
        examples=[{"fast": [5, 10, 15, 20], "slow": [30, 60, 90, 120]}],
    )
    metric: str = Field(
        default="sharpe", max_length=64, description="metric to rank by, see docs/metrics.md"
    )
    top: int = Field(default=10, ge=1, le=100, description="number of best combinations to list")
    max_combinations: int | None = Field(
        default=None, ge=1, description="BACKTEST_OPTIMIZER_MAX_COMBINATIONS where not given"
    )


class PortfolioSpec(_OnPreset):
    """A portfolio: one strategy on several symbols, with capital allocated between them."""

    kind: Literal["portfolio"] = "portfolio"
    symbols: list[Symbol] = Field(
        min_length=1, max_length=MOST_SYMBOLS, description="symbols to trade"
    )
    scheme: str = Field(
        default="equal_weight",
        max_length=64,
        description="weighting scheme: equal_weight, inverse_volatility, hrp, minimum_variance or "
        "cvar",
    )
    weights: dict[Symbol, float] | None = Field(
        default=None,
        description="fixed weights by symbol instead of a scheme, fractions that sum to 1",
    )
    rebalance: Rebalance = Field(
        default="monthly", description="when to rebalance: weekly, monthly or quarterly"
    )
    lookback: int = Field(
        default=90, ge=2, le=10_000, description="look-back for estimating weights, bars"
    )
    max_weight: float = Field(
        default=1.0, description="maximum weight of one symbol, fraction of equity"
    )


class CrossSectionSpec(_OfRanked):
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
            **{name: getattr(self, name) for name in _OF_RANKED},
        )


class RefreshSpec(SpecModel):
    """A refresh: bring bars, features, signals and backtests of these partitions up to date."""

    kind: Literal["refresh"] = "refresh"
    symbols: list[Symbol] = Field(min_length=1, max_length=MOST_SYMBOLS)
    timeframes: list[TimeframeName] = Field(min_length=1, max_length=100)
    full_rebuild: bool = Field(default=False, description="recompute even what has not changed")


StrategySpec = RunSpec | WalkForwardSpec | SweepSpec | PortfolioSpec
"""The specs of strategies that look at one asset at a time."""
ExecutableSpec = StrategySpec | CrossSectionSpec
"""The specs that `execute` computes, and jobs."""
Spec = ExecutableSpec | RefreshSpec


class JobSpec(SpecModel):
    """A spec to execute as a job, for one or many symbols and timeframes."""

    spec: Annotated[Spec, Field(discriminator="kind")]
    symbols: list[Symbol] = Field(
        default=[], max_length=MOST_SYMBOLS, description="symbols that replace the spec's own"
    )
    timeframes: list[TimeframeName] = Field(
        default=[], max_length=100, description="timeframes that replace the spec's own"
    )
    timeout_s: int = Field(
        default=3600, ge=300, le=14_400, description="seconds until the job is stopped"
    )


_S = TypeVar("_S", bound=SpecModel)
_executable: TypeAdapter[ExecutableSpec] = TypeAdapter(
    Annotated[ExecutableSpec, Field(discriminator="kind")]
)


def spec_of(values: Mapping[str, Any]) -> ExecutableSpec:
    """Build the spec of the use case named by `kind`, a run if `kind` is not given.

    Raises:
        UnknownName, InvalidInput: naming each field that is unknown, missing or invalid.

    Examples:
        >>> spec_of({"symbol": "BTC", "strategy": "rsi"}).kind
        'run'
    """
    try:
        return _executable.validate_python({"kind": "run", **values})
    except ValidationError as error:
        raise invalid_spec(error) from error


def checked(kind: type[_S], values: Mapping[str, Any]) -> _S:
    """Build a spec of this class; raises as `spec_of`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise invalid_spec(error, kind) from error


def invalid_spec(
    error: ValidationError, kind: type[SpecModel] | None = None
) -> InvalidInput | UnknownName:
    """A validation error of pydantic as our own error, with one sentence per field."""
    unknown: list[UnknownName] = []
    sentences: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for part in error.errors():
        where = (
            field_place({"loc": [at for n, at in enumerate(part["loc"]) if n or at not in _TAGS]})
            or "spec"
        )
        field = where.rpartition(".")[2]
        choices = re.findall("'([^']*)'", part["msg"])
        if part["type"] == "extra_forbidden":
            unknown.append(UnknownName("field", field, _fields_beside(part["loc"], kind)))
        elif part["type"] in ("literal_error", "enum"):
            unknown.append(UnknownName(field, str(part["input"]), choices))
        elif part["type"] == "union_tag_invalid":
            tag, _, *known = choices
            unknown.append(UnknownName(field, tag, known))
        else:
            said = sentences.setdefault(where, [])
            if (sentence := field_problem(part)) not in said:
                said.append(sentence)
            # Rules are too long to be repeated, and what is missing was not given.
            is_told = part["type"] != "missing" and field != "rules"
            given[where] = f", not {_shortened(part['input'])}" if is_told else ""
    if len(unknown) == 1 and not sentences:
        return unknown[0]
    wrong = (f"{where} {either(said)}{given[where]}" for where, said in sentences.items())
    return InvalidInput("; ".join([*map(str, unknown), *wrong]))


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]}..."


def _fields_beside(loc: tuple[int | str, ...], kind: type[SpecModel] | None) -> set[str]:
    """The known fields at the location of an unknown one."""
    kinds: tuple[type[BaseModel], ...] = get_args(ExecutableSpec)
    parts = {"costs": Costs, "stops": _STOPS, **_SIZINGS}
    if len(loc) > 1 and loc[-2] in parts:
        kinds = (parts[str(loc[-2])],)
    elif kind is not None:
        kinds = (kind,)
    return {name for one in kinds for name in one.model_fields} - {"kind"}


_LONGEST_TOLD = 100  # characters of a value that is repeated in an error
_TAGS = {
    "run",
    "walkforward",
    "optimize",
    "portfolio",
    "cross_section",
    "refresh",
}  # of the union of specs, first in a `loc`
