from __future__ import annotations

import json

import pytest

from backtest_pipeline.plans.vocabulary import Regime
from backtest_pipeline.strategist.judge import score_of
from backtest_pipeline.strategist.llm.conversation import RecordedModel
from backtest_pipeline.strategist.llm.llm_strategist import LlmStrategist
from backtest_pipeline.strategist.llm.opinion import opinion_of
from backtest_pipeline.strategist.proposal import NOTHING_USED
from backtest_pipeline.strategist.standing import Standing
from backtest_pipeline_tests.strategist.llm.models import GOOD, Scripted, known, scripted

PLAN = LlmStrategist(scripted(GOOD).model()).plan(known()).plan
STANDING = Standing(plan_return=-0.0123456789, triggered=3)


def asked(model: Scripted, now: Regime | None = Regime.BEAR):
    return opinion_of(model.model(), PLAN, STANDING, now)


def test_an_opinion_is_a_score_with_its_reason() -> None:
    model = scripted({"score": 25, "reason": "The trend has turned."})
    opinion = asked(model)
    assert (opinion.score, opinion.reason) == (25.0, "The trend has turned.")
    data = json.loads(model.said()[1])
    assert data["plan"] == PLAN.document()
    assert data["standing"]["plan_return"] == -0.012346
    assert data["regime_now"] == "bear"
    with_it = score_of(STANDING, PLAN.regime, Regime.BEAR, opinion=opinion.score)
    without = score_of(STANDING, PLAN.regime, Regime.BEAR)
    assert with_it.value == pytest.approx(0.6 * without.value + 0.4 * 25)


@pytest.mark.parametrize(
    "answer",
    [
        "It is a fine plan.",
        {"score": 101, "reason": ""},
        {"score": "50", "reason": ""},
        {"score": 50},
        {"score": 50, "reason": "", "replan": True},
        '{"score": 50, "score": 90, "reason": ""}',
        '{"score": NaN, "reason": ""}',
    ],
)
def test_without_a_good_answer_the_judge_goes_on_without_an_opinion(answer: object) -> None:
    opinion = asked(scripted(answer), now=None)  # pyright: ignore[reportArgumentType]
    assert opinion.score is None
    assert opinion.reason
    assert opinion.use.calls == 3


def test_a_recorded_opinion_is_given_again() -> None:
    live = asked(scripted("?", {"score": 70, "reason": "It fits."}))
    again = opinion_of(RecordedModel(live.transcript), PLAN, STANDING, Regime.BEAR)
    assert (again.score, again.reason, again.transcript) == (70.0, "It fits.", live.transcript)
    assert again.use == NOTHING_USED
