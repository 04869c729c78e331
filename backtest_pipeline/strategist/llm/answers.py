"""A model's answer as a plan: untrusted text, checked field by field and never executed."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from pydantic import ValidationError

from backtest_pipeline.market.errors import PlanRefused
from backtest_pipeline.plans.content import problems_of
from backtest_pipeline.plans.limits import RiskLimits
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.plans.vocabulary import Stance
from backtest_pipeline.strategist.known import Occasion
from backtest_pipeline.strategist.llm.conversation import MOST_ANSWER_CHARS
from backtest_pipeline.strategist.llm.prompt import LlmTerms
from backtest_pipeline.strategist.proposal import DERIVED, plan_of, require_followable, terms_of

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL)


def plan_of_answer(text: str, occasion: Occasion, terms: LlmTerms) -> Plan:
    """The plan that an answer is.

    The answer is one JSON object, which may stand in a code fence, with the fields of a plan but
    its id and times. Limits that it does not set are the ceilings. Nothing of it is corrected: what
    does not fit is refused.

    Args:
        text: the answer.
        occasion: what the plan is wanted for; it gives the times.
        terms: the ceilings, and how many triggers there may be.

    Raises:
        PlanRefused: with what is wrong, for whatever is not such a plan.
    """
    given = json_object(text)
    decided = [name for name in DERIVED if name in given]
    if decided:
        raise PlanRefused(f"{', '.join(decided)}: not yours to decide; leave it out")
    triggers = given.get("triggers", ())
    if isinstance(triggers, list):
        if len(triggers) > terms.most_triggers:
            raise PlanRefused(
                f"triggers: there are {len(triggers)}, and there may be {terms.most_triggers}"
            )
        if any(isinstance(trigger, dict) and "id" in trigger for trigger in triggers):
            raise PlanRefused("triggers: the id follows from the content; leave it out")
    # The times are put in as text, so that all of it is read as JSON, which is the stricter way.
    times = plan_of(occasion, _NOTHING).model_dump(mode="json", include={*DERIVED} - {"plan_id"})
    plan = plan_from(json.dumps({**given, **times}))
    limited = plan_of(occasion, {**terms_of(plan), "limits": _within(plan.limits, terms.ceilings)})
    require_followable(limited, occasion)
    return limited


_NOTHING = {"regime": "mixed", "stance": Stance.WAIT}


def _within(limits: RiskLimits, ceilings: RiskLimits) -> RiskLimits:
    """The limits, and the ceilings where there is none.

    Raises:
        PlanRefused: for a limit above its ceiling.
    """
    found: dict[str, float | None] = {}
    for name, ceiling in ceilings:
        limit = getattr(limits, name)
        if limit is not None and ceiling is not None and limit > ceiling:
            raise PlanRefused(f"limits.{name}: {limit:g} is above the ceiling of {ceiling:g}")
        found[name] = ceiling if limit is None else limit
    for least, most in (
        ("max_position_risk_pct", "max_daily_risk_budget_pct"),
        ("max_symbol_exposure_pct", "max_portfolio_exposure_pct"),
    ):
        # A ceiling that was filled in gives way to the limit that was set.
        filled, bound = found[least], found[most]
        if getattr(limits, least) is None and filled is not None and bound is not None:
            found[least] = min(filled, bound)
    try:
        return RiskLimits(**found)
    except ValidationError as error:
        raise PlanRefused(
            f"limits, with the ceilings where there is none: {problems_of(error)}"
        ) from error


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a text is, without an opinion on its fields.

    Raises:
        PlanRefused: for a text that is too long, no JSON, no object, or that names a key twice or
            a number that JSON does not have.

    Examples:
        >>> json_object('{"stance": "wait"}')
        {'stance': 'wait'}
    """
    if len(text) > MOST_ANSWER_CHARS:
        raise PlanRefused(
            f"the answer has more than {MOST_ANSWER_CHARS:,} characters; answer shorter"
        )
    stripped = text.strip()
    if not stripped:
        raise PlanRefused("the answer is empty; answer with the JSON object")
    fenced = _FENCED.fullmatch(stripped)
    try:
        found = json.loads(
            fenced[1] if fenced else stripped,
            object_pairs_hook=_once_each,
            parse_constant=_no_number,
        )
    except json.JSONDecodeError as error:
        raise PlanRefused(
            f"the answer is no JSON: {error.msg} at character {error.pos}; answer with the JSON "
            "object alone"
        ) from error
    except RecursionError as error:
        raise PlanRefused("the answer is nested too deep; follow the schema") from error
    except ValueError as error:  # a number of thousands of digits
        raise PlanRefused(f"the answer has a number that cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise PlanRefused(f"the answer is a JSON {type(found).__name__}, and must be an object")
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PlanRefused(f"the key {twice!r:.60} is there twice; write each once")
    return found


def _no_number(text: str) -> NoReturn:
    raise PlanRefused(f"{text} is no number of JSON; leave the field out")
