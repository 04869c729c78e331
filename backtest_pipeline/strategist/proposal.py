"""What a strategist gives back: a plan, how it came about, and what it cost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from backtest_pipeline.market.errors import PlanRefused
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import Category, Regime, Stance
from backtest_pipeline.strategist.known import Occasion

LEAST_CATEGORIES = 2
"""Categories of entries that a plan keeps enabled, unless its stance is to wait."""

_JUST_AFTER = timedelta(milliseconds=1)


class Origin(StrEnum):
    """How a proposal came about."""

    VALID = "valid"
    """The first answer was a plan; so is every plan by fixed rules."""
    RETRIED = "retried"
    """A later answer was, after ones that were not."""
    FALLBACK = "fallback"
    """No answer was: the terms of the previous plan hold on, or there is nothing to trade."""


@dataclass(frozen=True)
class ModelUse:
    """Calls of a language model, and what they used.

    Examples:
        >>> ModelUse(1, 900, 100, 0.01) + ModelUse(1, 100, 50, 0.01)
        ModelUse(calls=2, input_tokens=1000, output_tokens=150, cost_usd=0.02)
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of questions and answers together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: ModelUse) -> ModelUse:
        return ModelUse(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_usd + other.cost_usd,
        )

    def __sub__(self, other: ModelUse) -> ModelUse:
        return ModelUse(
            self.calls - other.calls,
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
            self.cost_usd - other.cost_usd,
        )


NOTHING_USED = ModelUse()


@dataclass(frozen=True)
class Proposal:
    """A plan as a strategist proposes it.

    Attributes:
        plan: always a valid plan.
        origin: how it came about.
        reason: why it was retried or fell back; empty for a valid one.
        model: `PROVIDER:MODEL` that was asked; None where none was.
        prompt_hash: hash of the prompt's text, 32 hex digits; None where no model was asked.
        response_hash: hash of all answers; None where no model was asked.
        transcript: questions and answers as canonical JSON, from which the proposal can be
            replayed; None where no model was asked.
        use: what the calls used; nothing for a replay.
        replayed: whether it came from a recorded transcript.
        over_budget: whether it fell back because the day's budget of a model is used up.
    """

    plan: Plan
    origin: Origin = Origin.VALID
    reason: str = ""
    model: str | None = None
    prompt_hash: str | None = None
    response_hash: str | None = None
    transcript: str | None = None
    use: ModelUse = NOTHING_USED
    replayed: bool = False
    over_budget: bool = False

    @property
    def transcript_hash(self) -> str | None:
        """sha256 of the transcript, the same for the same questions and answers."""
        if self.transcript is None:
            return None
        return hashlib.sha256(self.transcript.encode()).hexdigest()


def text_hash(text: str) -> str:
    """Hash of a text, 32 hex digits."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def plan_of(occasion: Occasion, terms: Mapping[str, Any]) -> Plan:
    """A plan of these terms, from the known instant on.

    Where the previous plan took effect at that instant already, or later, no newer bar has come,
    and the plan takes effect right after it: the bar has been decided.

    Args:
        occasion: what it is wanted for; it gives the plan its times.
        terms: all other fields of the plan.
    """
    effective = occasion.instant
    if occasion.previous is not None:
        effective = max(effective, occasion.previous.effective_ts + _JUST_AFTER)
    return Plan(
        generated_at=occasion.instant,
        effective_ts=effective,
        valid_until=effective + occasion.valid_for,
        **terms,
    )


def waiting(occasion: Occasion) -> Plan:
    """A plan that opens no position."""
    return plan_of(occasion, {"regime": Regime.MIXED, "stance": Stance.WAIT})


def carried_on(occasion: Occasion) -> Plan:
    """The terms of the previous plan from now on; a plan that waits where there is none."""
    if occasion.previous is None:
        return waiting(occasion)
    return plan_of(occasion, terms_of(occasion.previous))


TIMES = ("generated_at", "effective_ts", "valid_until")
DERIVED = ("plan_id", *TIMES)
"""Fields of a plan that no strategist decides."""


def terms_of(plan: Plan) -> dict[str, Any]:
    """The fields of a plan without its id and times."""
    return {name: value for name, value in plan if name not in DERIVED}


def changes_nothing(plan: Plan, previous: Plan) -> bool:
    """Whether a plan trades as the previous one does.

    Triggers and their order, limits, sizing, stance and what is allowed are the same; the regime
    that it was made for may be another one.

    Examples:
        >>> from backtest_pipeline.plans.plan import plan_from
        >>> quiet = {"generated_at": "2024-01-31T00:00:00Z", "stance": "wait"}
        >>> times = {"effective_ts": "2024-01-31T00:00:00Z", "valid_until": "2024-02-29T00:00:00Z"}
        >>> one = plan_from({**quiet, **times, "regime": "range"})
        >>> changes_nothing(one, plan_from({**quiet, **times, "regime": "bull"}))
        True
    """
    before, after = terms_of(previous), terms_of(plan)
    return all(before[name] == after[name] for name in before if name != "regime")


def enabled_entries(plan: Plan) -> set[Category]:
    """Categories of entries that a plan has a trigger of, and allows."""
    allowed = plan.allowed_categories
    return {
        trigger.category
        for trigger in plan.triggers
        if trigger.category.enters and (allowed is None or trigger.category in allowed)
    }


def require_followable(plan: Plan, occasion: Occasion) -> None:
    """Check a plan against the book that it is made for.

    Raises:
        PlanRefused: for a trigger or an allowed symbol outside of the book, or fewer than two
            enabled categories of entries in a plan that does not wait.
    """
    for position, trigger in enumerate(plan.triggers):
        for kind, name, names in (
            ("symbol", trigger.symbol, occasion.symbols),
            ("timeframe", trigger.timeframe, occasion.timeframes),
        ):
            if name not in names:
                raise PlanRefused(
                    f"triggers.{position}.{kind}: {name!r:.60} is not in the book; use "
                    f"{', '.join(names)[:300]}"
                )
    for symbol in plan.allowed_symbols or ():
        if symbol not in occasion.symbols:
            raise PlanRefused(f"allowed_symbols: {symbol!r:.60} is not in the book; leave it out")
    enabled = enabled_entries(plan)
    if plan.stance is not Stance.WAIT and len(enabled) < LEAST_CATEGORIES:
        raise PlanRefused(
            f"triggers: {len(enabled)} enabled categories of entries "
            f"({', '.join(sorted(enabled)) or 'none'}), and a plan needs {LEAST_CATEGORIES}; add "
            "triggers of another category, or write stance wait"
        )
