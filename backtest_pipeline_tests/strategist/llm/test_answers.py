from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from backtest_pipeline.market.errors import PlanRefused
from backtest_pipeline.plans.limits import RiskLimits
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import Stance
from backtest_pipeline.strategist.llm.answers import plan_of_answer
from backtest_pipeline.strategist.llm.prompt import LlmTerms
from backtest_pipeline_tests.strategist.llm.models import GOOD, known

OCCASION = known().occasion
TERMS = LlmTerms()


def read(answer: Any, terms: LlmTerms = TERMS) -> Plan:
    return plan_of_answer(
        answer if isinstance(answer, str) else json.dumps(answer), OCCASION, terms
    )


def but(**fields: Any) -> dict[str, Any]:
    return {**GOOD, **fields}


def with_trigger(**fields: Any) -> dict[str, Any]:
    answer = copy.deepcopy(GOOD)
    answer["triggers"][0].update(fields)
    return answer


def test_an_answer_is_a_plan_with_the_times_of_its_occasion() -> None:
    plan = read(GOOD)
    assert plan.generated_at == plan.effective_ts == OCCASION.instant
    assert plan.valid_until == OCCASION.instant + OCCASION.valid_for
    assert [t.category.value for t in plan.triggers] == [t["category"] for t in GOOD["triggers"]]


def test_a_code_fence_around_the_object_is_none_of_it() -> None:
    text = json.dumps(GOOD)
    assert read(f"\n```json\n{text}\n```\n") == read(f"```\n{text}\n```") == read(f"  {text} ")


def test_limits_that_are_not_set_are_the_ceilings() -> None:
    plan = read(GOOD)
    assert plan.limits == RiskLimits(
        max_position_risk_pct=2.0,
        max_symbol_exposure_pct=40.0,
        max_portfolio_exposure_pct=100.0,
        max_daily_loss_pct=3.0,
        max_daily_risk_budget_pct=10.0,
    )
    low = read(but(limits={"max_portfolio_exposure_pct": 20.0, "max_daily_risk_budget_pct": 1.0}))
    assert low.limits.max_symbol_exposure_pct == 20.0
    assert low.limits.max_position_risk_pct == 1.0
    budget = LlmTerms(ceilings=RiskLimits(max_daily_risk_budget_pct=3.0))
    assert read(but(limits={}), budget).limits == budget.ceilings
    with pytest.raises(PlanRefused, match="max_position_risk_pct: 5 contradicts max_daily_risk_bu"):
        read(but(limits={"max_position_risk_pct": 5.0}), budget)
    free = LlmTerms(ceilings=RiskLimits())
    assert read(but(limits={}), free).limits == RiskLimits()


def test_a_plan_that_waits_needs_no_trigger() -> None:
    assert read({"regime": "mixed", "stance": "wait"}).stance is Stance.WAIT


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "the answer is empty"),
        ("   \n", "the answer is empty"),
        (
            "Ich würde jetzt kaufen, weil der Markt steigt.",
            "no JSON: Expecting value at character 0",
        ),
        ("我认为应该买入。", "no JSON"),
        (json.dumps(GOOD)[:200], "no JSON"),
        (json.dumps(GOOD) + " I hope this helps!", "no JSON: Extra data"),
        (f"Here you go:\n```json\n{json.dumps(GOOD)}\n```", "no JSON"),
        (json.dumps(GOOD) + json.dumps(GOOD), "Extra data"),
        ("[]", "a JSON list, and must be an object"),
        ("null", "a JSON NoneType"),
        ('"wait"', "a JSON str"),
        ("[" * 100_000, "no JSON|nested too deep"),
        ('{"a":' * 20_000, "no JSON|nested too deep"),
        (" " * 2_000_000, "more than 100,000 characters"),
        ('{"stance": "wait", "stance": "active", "regime": "bull"}', "'stance' is there twice"),
        ('{"regime": "bull", "stance": "wait", "max_trades_per_day": NaN}', "NaN is no number"),
        ('{"regime": "bull", "stance": "wait", "min_hold_bars": -Infinity}', "-Infinity is no"),
        ('{"min_hold_bars": ' + "9" * 5_000 + "}", "a number that cannot be read"),
        (but(plan_id="p_1"), "plan_id: not yours to decide"),
        (but(valid_until="2030-01-01T00:00:00Z"), "valid_until: not yours to decide"),
        (but(regime="calm"), "regime: must be"),
        (but(stance=None), "stance"),
        (but(extra=1), "extra: is no field here"),
        (but(max_trades_per_day="4"), "max_trades_per_day: must be a whole number"),
        (but(max_trades_per_day=4.5), "max_trades_per_day"),
        (but(max_trades_per_day=True), "max_trades_per_day"),
        (but(limits={"max_daily_loss_pct": "3"}), "limits.max_daily_loss_pct"),
        (but(limits={"max_daily_loss_pct": 1e999}), "Infinity is no number"),
        (but(limits={"max_daily_loss_pct": 5.0}), "limits.max_daily_loss_pct: 5 is above the ceil"),
        (but(limits={"max_symbol_exposure_pct": 90.0}), "90 is above the ceiling of 40"),
        (but(triggers={}), "triggers"),
        (but(triggers=[GOOD["triggers"][0]] * 41), "there are 41, and there may be 40"),
        (but(triggers=[GOOD["triggers"][0]] * 2), "the same as triggers.0"),
        (but(triggers=[GOOD["triggers"][0]]), "1 enabled categories of entries"),
        (but(allowed_categories=["mean_reversion"]), "1 enabled categories of entries"),
        (but(triggers=[]), "0 enabled categories"),
        (but(allowed_symbols=["S-0", "S-9"]), "allowed_symbols: 'S-9' is not in the book"),
        (but(allowed_directions=[]), "allowed_directions: nothing is allowed"),
        (but(sizing={"mode": "fixed", "fraction": 0}), "fraction must be above 0"),
        (but(sizing={"mode": "martingale"}), "sizing"),
        (
            but(sessions=[{"start": "20:00", "end": "04:00"}]),
            "write a session over midnight as two",
        ),
        (with_trigger(id="t_0000"), "the id follows from the content"),
        (with_trigger(symbol="S-9"), "triggers.0.symbol: 'S-9' is not in the book"),
        (with_trigger(timeframe="1H"), "triggers.0.timeframe: '1H' is not in the book"),
        (with_trigger(timeframe="fortnight"), "triggers.0.timeframe"),
        (with_trigger(category="scalping"), "triggers.0.category"),
        (with_trigger(stop_loss_pct=None), "every entry needs a stop"),
        (with_trigger(stop_loss_pct=0), "triggers.0.stop_loss_pct"),
        (with_trigger(stop_loss_pct="6"), "triggers.0.stop_loss_pct"),
        (with_trigger(entry="close > shift(close, -1)"), "n of shift\\(\\) must be"),
        (with_trigger(entry="close > tomorrow"), "unknown column 'tomorrow'"),
        (with_trigger(entry="__import__('os').system('id') > 0"), "entry, line 1"),
        (with_trigger(entry="close"), "must be a condition"),
        (with_trigger(entry="close > " + "9" * 5_000), "longer than 2000|at most 2000"),
        (with_trigger(strategy="rsi_mean_revert"), "its conditions are the entry and the exit"),
        (but(triggers=[{**GOOD["triggers"][1], "strategy": "moon"}]), "unknown strategy 'moon'"),
        (but(triggers=[{**GOOD["triggers"][1], "params": {"lower": 500}}]), "lower"),
    ],
)
def test_what_is_no_plan_is_refused_with_the_reason(answer: Any, reason: str) -> None:
    with pytest.raises(PlanRefused, match=reason):
        read(answer)


def test_the_previous_answer_of_another_language_keeps_its_english_words() -> None:
    spanish = {"régimen": "alcista", "postura": "activa", "disparadores": []}
    with pytest.raises(PlanRefused, match="regime: is missing"):
        read(spanish)
