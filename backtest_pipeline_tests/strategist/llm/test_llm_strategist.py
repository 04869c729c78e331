from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput, TranscriptMismatch
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import ReplanReason, Stance
from backtest_pipeline.strategist.history import plan_history
from backtest_pipeline.strategist.known import Known
from backtest_pipeline.strategist.llm.budget import OwnBudget
from backtest_pipeline.strategist.llm.live_model import LiveModel
from backtest_pipeline.strategist.llm.llm_strategist import LlmStrategist, replayed
from backtest_pipeline.strategist.llm.prompt import LlmTerms, plan_prompt
from backtest_pipeline.strategist.proposal import (
    NOTHING_USED,
    ModelUse,
    Origin,
    Proposal,
    changes_nothing,
    text_hash,
)
from backtest_pipeline_tests.strategist.llm.models import (
    GOOD,
    MARKET,
    Scripted,
    known,
    scripted,
    settings,
)
from backtest_pipeline_tests.strategist.markets import up_to


def proposed(model: Scripted, case: Known | None = None, **given: Any) -> Proposal:
    return LlmStrategist(model.model(**given)).plan(case or known())


def previous() -> Plan:
    return proposed(scripted(GOOD), known(day=240)).plan


def test_a_good_answer_is_the_plan() -> None:
    model = scripted(GOOD)
    proposal = proposed(model)
    assert (proposal.origin, proposal.reason) == (Origin.VALID, "")
    assert proposal.plan.regime.value == "bull"
    assert (proposal.model, proposal.replayed) == ("openai:gpt-5.6", False)
    assert proposal.prompt_hash == text_hash(plan_prompt())
    assert proposal.response_hash == text_hash(json.dumps(GOOD))
    assert proposal.use.calls == len(model.asked) == 1
    assert proposal.use.tokens > 1_000
    assert proposal.use.cost_usd > 0


def test_a_bad_answer_is_asked_for_again_with_what_is_wrong_with_it() -> None:
    from pydantic_ai.messages import ModelRequest, ModelResponse

    model = scripted({**GOOD, "stance": "bold"}, "no idea", GOOD)
    proposal = proposed(model)
    assert (proposal.origin, proposal.use.calls) == (Origin.RETRIED, 3)
    assert proposal.reason.startswith("the answer is no JSON")
    last = model.asked[-1]
    kinds = [type(message) for message in last]
    assert kinds == [ModelRequest, ModelResponse, ModelRequest, ModelResponse, ModelRequest]
    assert "stance: must be" in str(last[2].parts[0])
    assert "the answer is no JSON" in str(last[4].parts[0])


def test_without_a_good_answer_the_previous_terms_hold_on_with_the_reason() -> None:
    before = previous()
    case = known(before)
    model = scripted("", "Je ne sais pas.", json.dumps(GOOD)[:-1])
    proposal = proposed(model, case)
    assert (proposal.origin, proposal.use.calls) == (Origin.FALLBACK, 3)
    assert "no JSON" in proposal.reason
    assert changes_nothing(proposal.plan, before)
    assert proposal.plan.effective_ts == case.occasion.instant


def test_without_an_answer_or_a_plan_before_nothing_is_traded() -> None:
    plan = proposed(scripted("no")).plan
    assert (plan.stance, plan.triggers) == (Stance.WAIT, ())


@pytest.mark.parametrize("texts", [(GOOD,), ("no", GOOD), ("no", "", {}), ("x" * 2_000_000, GOOD)])
def test_a_recorded_conversation_gives_the_same_plan_without_a_call(texts: tuple) -> None:
    case = known(previous())
    model = scripted(*texts)
    live = proposed(model, case)
    again = replayed(case, live.transcript or "")
    assert again.plan == live.plan
    assert (again.origin, again.reason) == (live.origin, live.reason)
    assert again.transcript == live.transcript
    assert again.transcript_hash == live.transcript_hash
    assert (again.prompt_hash, again.response_hash) == (live.prompt_hash, live.response_hash)
    assert (again.use, again.replayed) == (NOTHING_USED, True)
    assert len(model.asked) == live.use.calls


def test_equal_answers_have_equal_transcripts_whenever_they_were_given() -> None:
    one, other = (proposed(scripted("no", GOOD)) for _ in range(2))
    assert one.transcript_hash == other.transcript_hash
    assert "timestamp" not in (one.transcript or "")


def test_other_data_or_terms_are_a_named_error_and_no_call() -> None:
    transcript = proposed(scripted(GOOD)).transcript or ""
    for case, terms in ((known(day=249), LlmTerms()), (known(), LlmTerms(bars=29))):
        with pytest.raises(TranscriptMismatch, match="what was known is another today"):
            replayed(case, transcript, terms)
    with pytest.raises(TranscriptMismatch, match="what was known"):
        replayed(known(previous()), transcript)
    with pytest.raises(TranscriptMismatch, match="what was known"):
        replayed(known(reason=ReplanReason.MANUAL), transcript)


def test_the_test_model_of_the_client_is_asked_like_any_other() -> None:
    from pydantic_ai.models.test import TestModel

    fixed = TestModel(custom_output_text=json.dumps(GOOD))
    model = LiveModel(settings(), model=fixed)
    assert LlmStrategist(model).plan(known()).origin is Origin.VALID


def test_an_earlier_answer_that_tells_the_model_what_to_do_is_data() -> None:
    told = "close > 0 and volume > 0"
    answer = copy.deepcopy(GOOD)
    answer["triggers"][0]["entry"] = told
    before = proposed(scripted(answer), known(day=240)).plan
    model = scripted(GOOD)
    proposed(model, known(before))
    system, data = model.said()
    assert told not in system
    assert json.loads(data)["previous_plan"]["triggers"][0]["entry"] == told


def test_an_answer_that_obeys_an_injection_stays_within_the_ceilings_of_the_book() -> None:
    obeyed = {
        **GOOD,
        "limits": {"max_daily_loss_pct": 100.0, "max_symbol_exposure_pct": 10_000.0},
        "allowed_symbols": ["EVIL"],
    }
    proposal = proposed(scripted(obeyed), known(previous()))
    assert proposal.origin is Origin.FALLBACK
    assert "above the ceiling" in proposal.reason
    assert proposal.plan.limits.max_daily_loss_pct == 3.0


def test_a_feature_that_does_not_exist_is_the_users_error_not_the_models() -> None:
    strategist = LlmStrategist(scripted(GOOD).model(), LlmTerms(features=("ema50",)))
    with pytest.raises(InvalidInput, match="no feature 'ema50'"):
        strategist.plan(known())


def test_a_budget_that_is_used_up_ends_in_a_plan_without_a_call() -> None:
    model = scripted(GOOD)
    budget = OwnBudget(ModelUse(5, 8_000, 2_000, 0.1))
    strategist = LlmStrategist(model.model(budget, llm_tokens_per_day=20_000))
    proposal = strategist.plan(known(previous()))
    assert (proposal.origin, proposal.use, model.asked) == (Origin.FALLBACK, NOTHING_USED, [])
    assert "the day's budget of 20,000 tokens is used up: 10,000 used" in proposal.reason


def test_a_history_asks_once_a_day_within_the_budget_and_counts_what_changes_nothing() -> None:
    model = scripted(GOOD)
    panel = up_to(MARKET, 12)
    strategist = LlmStrategist(model.model(llm_tokens_per_day=30_000, llm_usd_per_day=100))
    history = plan_history(strategist, {"1D": panel})
    assert len(np.unique(panel.ts)) == len(history.asked) == 12
    assert len(history.records) == 1
    assert history.records[0].suppressed == 11
    reasons = {asked.proposal.reason.partition(":")[0] for asked in history.asked}
    assert reasons == {"", "the day's budget of 30,000 tokens is used up"}
    assert history.use.tokens <= 30_000
    assert history.use.calls == len(model.asked) < 12
