"""A plan: which triggers are live from an instant on, and under which limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from backtest_pipeline.market.errors import InvalidInput, PlanRefused
from backtest_pipeline.plans.content import (
    StrictPlanModel,
    content_id,
    key_twice,
    problems_of,
    require_id,
)
from backtest_pipeline.plans.limits import RiskLimits, TradeLimits
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.plans.vocabulary import Category, Regime, Stance
from backtest_pipeline.trading.direction import Direction
from backtest_pipeline.trading.fields import Symbol, one_of, sizing_models
from backtest_pipeline.trading.sizing import SIZINGS, ByExpression, EqualWeight, Sizing

MOST_TRIGGERS = 10_000

_SIZING_MODELS = sizing_models(StrictPlanModel)
if TYPE_CHECKING:
    PlanSizing = BaseModel
else:
    PlanSizing = one_of(_SIZING_MODELS)


def _text_or_stamp(value: object) -> object:
    """A stamp as it was given; a number would be read as seconds or milliseconds."""
    if not isinstance(value, str | datetime):
        raise ValueError("write a stamp as text, such as 2024-01-31T23:59:59.999Z")
    return value


def _in_utc(stamp: datetime) -> datetime:
    if stamp.utcoffset() != timedelta(0):
        raise ValueError(f"{stamp.isoformat()} is not in UTC; write it with Z")
    return stamp.astimezone(UTC)


Stamp = Annotated[AwareDatetime, BeforeValidator(_text_or_stamp), AfterValidator(_in_utc)]


class Plan(TradeLimits):
    """Which triggers are live from `effective_ts` on, and under which limits.

    The order of the triggers is their priority. A plan decides at the closes of bars from
    `effective_ts` on, until a later plan takes its place or `valid_until`.

    Raises:
        ValueError: (as pydantic's ValidationError) with the field, for a plan that saw data after
            it takes effect, limits that contradict each other, or a trigger that cannot be read.
    """

    plan_id: str = Field(
        default="", description="derived from the content; checked where given, best left out"
    )
    generated_at: Stamp = Field(
        description="last instant whose data it saw, UTC; not after effective_ts"
    )
    effective_ts: Stamp = Field(description="from when it is followed, in the market's time, UTC")
    valid_until: Stamp = Field(
        description="until when positions may be opened by it, UTC; after effective_ts"
    )
    regime: Regime = Field(description="state of the market that it is made for")
    stance: Stance = Field(description="how it means to trade; wait opens no position")
    triggers: tuple[Trigger, ...] = Field(
        default=(), max_length=MOST_TRIGGERS, description="its triggers, by falling priority"
    )
    limits: RiskLimits = Field(default=RiskLimits(), description="limits of risk")
    sizing: PlanSizing | None = Field(
        default=None,
        description="how much of the equity an entry uses; null for equal parts of all symbols",
    )
    allowed_symbols: tuple[Symbol, ...] | None = Field(
        default=None, description="symbols that may be entered; null for all"
    )
    allowed_directions: tuple[Direction, ...] | None = Field(
        default=None, description="sides that may be entered; null for both"
    )
    allowed_categories: tuple[Category, ...] | None = Field(
        default=None, description="categories whose triggers act; null for all"
    )

    @model_validator(mode="after")
    def _sound_plan(self) -> Plan:
        self._require_order()
        self._take_allowed()
        seen: dict[str, int] = {}
        for position, trigger in enumerate(self.triggers):
            if trigger.id in seen:
                raise ValueError(
                    f"triggers.{position}: the same as triggers.{seen[trigger.id]}; leave one out"
                )
            seen[trigger.id] = position
        self._take_sizing()
        derived = content_id("p", self._content())
        require_id(self.plan_id, derived, "plan")
        self._take("plan_id", derived)
        return self

    def sized(self) -> Sizing:
        """Its sizing, as the simulation takes it.

        Examples:
            >>> quiet = plan_from({"generated_at": "2024-01-31T23:59:59.999Z",
            ...     "effective_ts": "2024-01-31T23:59:59.999Z",
            ...     "valid_until": "2024-02-29T23:59:59.999Z", "regime": "range",
            ...     "stance": "wait", "sizing": {"mode": "fixed", "fraction": 0.5}})
            >>> quiet.sized()
            FixedFractional(fraction=0.5)
        """
        return EqualWeight() if self.sizing is None else _sizing(self.sizing)

    def until(self, valid_until: datetime) -> Plan:
        """The plan with a later end; the plan itself where it is valid for longer already.

        Examples:
            >>> from datetime import UTC, datetime
            >>> quiet = plan_from({"generated_at": "2024-01-31T23:59:59.999Z",
            ...     "effective_ts": "2024-01-31T23:59:59.999Z",
            ...     "valid_until": "2024-02-29T23:59:59.999Z", "regime": "range",
            ...     "stance": "wait"})
            >>> longer = quiet.until(datetime(2024, 3, 1, tzinfo=UTC))
            >>> longer.plan_id == quiet.plan_id, longer == plan_from(longer.document())
            (False, True)
        """
        if valid_until <= self.valid_until:
            return self
        longer = self.model_copy(update={"valid_until": _in_utc(valid_until)})
        longer._take("plan_id", content_id("p", longer._content()))
        return longer

    def document(self) -> dict[str, Any]:
        """The plan with its ids as JSON values; `plan_from` reads it again.

        Fields at their defaults are left out.
        """
        return self._dumped(exclude={"sizing"})

    def _dumped(self, exclude: set[str]) -> dict[str, Any]:
        """Its fields but for those at their defaults; a sizing has all of its own."""
        sizing = {} if self.sizing is None else {"sizing": self.sizing.model_dump(mode="json")}
        return self.model_dump(mode="json", exclude_defaults=True, exclude=exclude) | sizing

    def _require_order(self) -> None:
        if self.generated_at > self.effective_ts:
            raise ValueError(
                f"generated_at: {_text(self.generated_at)} is after effective_ts "
                f"{_text(self.effective_ts)}, so that the plan would know the future (look-ahead); "
                "let it take effect later, or see less"
            )
        if self.valid_until <= self.effective_ts:
            raise ValueError(
                f"valid_until: {_text(self.valid_until)} is not after effective_ts "
                f"{_text(self.effective_ts)}"
            )

    def _take_sizing(self) -> None:
        """The sizing in one spelling, and none where it is what a plan has without any."""
        sizing = self.sized()
        if sizing == EqualWeight():
            self._take("sizing", None)
        elif self.sizing is not None:
            (mode,) = (name for name, kind in SIZINGS.items() if kind is type(sizing))
            self._take("sizing", _SIZING_MODELS[mode](**asdict(sizing)))

    def _take_allowed(self) -> None:
        """What is allowed, each once and in one order."""
        for name in ("allowed_symbols", "allowed_directions", "allowed_categories"):
            given = getattr(self, name)
            if given is None:
                continue
            if not given:
                raise ValueError(f"{name}: nothing is allowed; write stance wait to trade nothing")
            self._take(name, tuple(sorted(set(given))))

    def _content(self) -> dict[str, Any]:
        others = self._dumped(exclude={"sizing", "plan_id", "limits", "triggers"})
        limits = {name: float(v) for name, v in self.limits if v is not None}
        triggers = [trigger.id for trigger in self.triggers]
        return {**others, "limits": limits, "triggers": triggers}


def _sizing(model: BaseModel) -> Sizing:
    """The sizing of its fields, in one spelling; raises ValueError for one out of its bounds."""
    from backtest_pipeline.strategies.rules.expressions import (
        number_expression,
        plain_sizing,
        require_features,
    )

    given = model.model_dump()
    try:
        sizing = SIZINGS[given.pop("mode")](**given)
        if isinstance(sizing, ByExpression):
            require_features(sizing.fraction, "fraction")
            spelling = number_expression(sizing.fraction, "fraction").spelling
            return plain_sizing(ByExpression(spelling))
    except InvalidInput as error:
        raise ValueError(f"sizing: {error}") from error
    return sizing


def _text(stamp: datetime) -> str:
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plan_from(given: Mapping[str, Any] | str | bytes) -> Plan:
    """The plan of JSON values, or of a JSON text.

    Raises:
        PlanRefused: naming each field that is missing, unknown or wrong, with the reason, or a key
            that a text has twice.

    Examples:
        >>> plan_from({"generated_at": "2024-01-31T23:59:59.999Z",
        ...     "effective_ts": "2024-01-31T23:59:59.999Z",
        ...     "valid_until": "2024-02-29T23:59:59.999Z", "regime": "calm", "stance": "wait"})
        Traceback (most recent call last):
        ...
        backtest_pipeline.market.errors.PlanRefused: the plan is refused: regime: must be \
'bull', 'bear', 'range', 'high_vol' or 'mixed'
    """
    text = given if isinstance(given, str | bytes) else json.dumps(given)
    twice = None if text is not given else key_twice(text)
    if twice is not None:
        raise PlanRefused(f"the plan is refused: {twice:.200}: is there twice; write it once")
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        raise PlanRefused(f"the plan is refused: {problems_of(error, Plan)}") from error
