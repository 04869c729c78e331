"""A language model's opinion of a running plan, for the judge."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.plans.content import problems_of
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import Regime
from backtest_pipeline.strategist.llm.answers import json_object
from backtest_pipeline.strategist.llm.conversation import AskedModel, converse, transcript_of
from backtest_pipeline.strategist.llm.prompt import as_json, judge_prompt
from backtest_pipeline.strategist.proposal import ModelUse
from backtest_pipeline.strategist.standing import Standing


class JudgeAnswer(BaseModel):
    """What a model answers about a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    score: float = Field(ge=0, le=100)
    reason: str = Field(max_length=1_000)


@dataclass(frozen=True)
class Opinion:
    """A model's opinion of a plan.

    Attributes:
        score: 0 to 100, for `judge.score_of`; None where no answer was any good.
        reason: of the model, or why there is no score.
        transcript: questions and answers as canonical JSON.
        use: what the calls used.
    """

    score: float | None
    reason: str
    transcript: str
    use: ModelUse


def opinion_of(
    model: AskedModel,
    plan: Plan,
    standing: Standing,
    now: Regime | None,
) -> Opinion:
    """What a model thinks of the plan in force; without a good answer the judge goes on without.

    Args:
        model: who is asked.
        plan: the plan in force.
        standing: how its book has fared under it.
        now: the regime now; None where it is not known.
    """
    numbers: dict[str, Any] = {name: round(v, 6) for name, v in asdict(standing).items()}
    question = as_json(
        {
            "plan": plan.document(),
            "standing": numbers,
            "regime_now": None if now is None else now.value,
        }
    )
    went = converse(model, judge_prompt(), question, _read)
    answer = went.value
    return Opinion(
        None if answer is None else answer.score,
        went.problem if answer is None else answer.reason,
        transcript_of(model.name, went.turns),
        went.use,
    )


def _read(text: str) -> JudgeAnswer:
    json_object(text)
    try:
        return JudgeAnswer.model_validate_json(text)
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error
