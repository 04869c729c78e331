"""A trigger: one reason to enter or to leave one symbol."""

from __future__ import annotations

from typing import Annotated, Any
from weakref import WeakValueDictionary

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.plans.content import PlanModel, content_id, require_id
from backtest_pipeline.plans.vocabulary import Category
from backtest_pipeline.trading.direction import Direction
from backtest_pipeline.trading.fields import Symbol


def known_timeframe(name: str) -> str:
    """The name of a timeframe as it is spelled here; raises ValueError for one that is none."""
    # The JSON Schema is made from these fields, and need not wait for what computes timeframes.
    from backtest_pipeline.market.timeframes import timeframe

    try:
        return timeframe(name).name
    except BacktestError as error:
        raise ValueError(str(error)) from error


KnownTimeframe = Annotated[
    str, Field(min_length=2, max_length=24, examples=["1D"]), AfterValidator(known_timeframe)
]
Rule = Annotated[str, Field(min_length=1, max_length=2000, examples=["close > ema_50"])]
Value = StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | None
StopPercent = Annotated[StrictFloat, Field(gt=0, lt=100)]
ExitFraction = Annotated[StrictFloat, Field(gt=0, le=1)]


class Trigger(PlanModel):
    """One reason to enter or to leave one symbol.

    A trigger of a category that enters has an `entry` rule, or the `strategy` whose conditions it
    follows, and always a stop. One of `risk_reduce`, `risk_off` and `emergency_exit` has an `exit`
    rule alone, and closes what any trigger has opened.

    Raises:
        ValueError: (as pydantic's ValidationError) with the field, for what contradicts itself, a
            rule that cannot be read, or a strategy or parameter that does not exist.

    Examples:
        >>> dip = {"symbol": "S-ALPHA", "timeframe": "1D", "category": "mean_reversion",
        ...     "direction": "long", "entry": "rsi_14 < 30", "stop_loss_pct": 5.0}
        >>> Trigger(**dip).id == Trigger(**dip | {"entry": "(rsi_14<30)", "exit_fraction": 1}).id
        True
    """

    id: str = Field(
        default="", description="derived from the content; checked where given, best left out"
    )
    symbol: Symbol = Field(description="the coin or pair that is traded")
    timeframe: KnownTimeframe = Field(description="length of the bars that it is evaluated on")
    category: Category = Field(description="what it is for")
    direction: Direction = Field(
        description="side that it enters, or whose positions it closes; both: of a strategy, "
        "both of its sides; of a trigger that closes, positions of any side"
    )
    entry: Rule | None = Field(
        default=None, description="condition to enter, in the rule language of docs/rules.md"
    )
    exit: Rule | None = Field(
        default=None,
        description="condition to leave what this trigger entered; of a trigger that only closes, "
        "whatever is held",
    )
    strategy: str | None = Field(
        default=None,
        max_length=64,
        description="strategy whose entries and exits it follows, in place of entry and exit",
    )
    params: dict[str, Value] = Field(
        default={}, description="parameters of the strategy; defaults if not given"
    )
    stop_loss_pct: StopPercent | None = Field(
        default=None,
        description="loss from the entry price at which the position is closed, percent; needed "
        "to enter",
    )
    exit_fraction: ExitFraction = Field(
        default=1.0,
        description="part of the position that a trigger of risk_reduce closes, above 0 up to 1",
    )

    @model_validator(mode="after")
    def _sound(self) -> Trigger:
        if _CHECKED.get(id(self)) is self:
            return self
        problems = self._problems()
        if problems:
            raise ValueError("; ".join(problems))
        if self.strategy is not None:
            self._take_strategy()
        derived = content_id("t", self._content())
        require_id(self.id, derived, "trigger")
        self._take("id", derived)
        _CHECKED[id(self)] = self
        return self

    def _problems(self) -> list[str]:
        found = self._problems_of_entry() if self.category.enters else self._problems_of_exit()
        if self.exit_fraction != 1.0 and self.category is not Category.RISK_REDUCE:
            found.append(
                "exit_fraction: only a trigger of risk_reduce closes a part of a position; "
                "leave it out"
            )
        return found

    def _problems_of_entry(self) -> list[str]:
        found = []
        if self.strategy is None and self.entry is None:
            found.append(f"entry: a trigger of {self.category} needs an entry rule, or a strategy")
        if self.strategy is not None and (self.entry, self.exit) != (None, None):
            found.append("strategy: its conditions are the entry and the exit; leave those out")
        if self.strategy is None and self.params:
            found.append("params: there is no strategy that has them")
        if self.strategy is None and self.direction is Direction.BOTH:
            found.append("direction: an entry rule enters one side, long or short")
        if self.stop_loss_pct is None:
            found.append("stop_loss_pct: every entry needs a stop, such as 5.0 for 5 %")
        return found

    def _problems_of_exit(self) -> list[str]:
        found = []
        if self.exit is None:
            found.append(f"exit: a trigger of {self.category} needs an exit rule")
        found += [
            f"{name}: a trigger of {self.category} only closes; leave it out"
            for name in ("entry", "strategy", "stop_loss_pct")
            if getattr(self, name) is not None
        ]
        if self.params:
            found.append("params: there is no strategy that has them")
        return found

    def _take_strategy(self) -> None:
        """The strategy by its full name, and the parameters that are not at their defaults."""
        # The JSON Schema is made from these fields, and need not wait for the strategies.
        from backtest_pipeline.strategies.registry import strategy_of

        try:
            found = strategy_of(str(self.strategy))
            params = found.parse(self.params)
        except BacktestError as error:
            raise ValueError(f"strategy: {error}") from error
        self._take("strategy", found.name)
        self._take("params", params.model_dump(exclude_defaults=True))

    def _content(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("symbol", "timeframe", "strategy")},
            "category": self.category.value,
            "direction": self.direction.value,
            "entry": _digest(self.entry, "entry"),
            "exit": _digest(self.exit, "exit"),
            "params": self.params,
            "stop_loss_pct": None if self.stop_loss_pct is None else float(self.stop_loss_pct),
            "exit_fraction": None if self.exit_fraction == 1.0 else float(self.exit_fraction),
        }


def _digest(rule: str | None, where: str) -> str | None:
    """Hash of what a rule computes; raises ValueError with the place of what cannot be read."""
    from backtest_pipeline.strategies.rules.expressions import condition_expression

    if rule is None:
        return None
    try:
        return condition_expression(rule, where).digest
    except BacktestError as error:
        raise ValueError(str(error)) from error


_CHECKED: WeakValueDictionary[int, Trigger] = WeakValueDictionary()
"""The triggers that are found sound, by their identity: those that are kept over replans come with
each plan anew. A copy, whose fields may have been changed, is another object."""
