"""The strategist `llm`: a language model writes the plan, within ceilings."""

from __future__ import annotations

from backtest_pipeline.strategist.known import Known
from backtest_pipeline.strategist.llm.answers import plan_of_answer
from backtest_pipeline.strategist.llm.conversation import (
    AskedModel,
    RecordedModel,
    converse,
    transcript_of,
)
from backtest_pipeline.strategist.llm.prompt import LlmTerms, plan_prompt, question
from backtest_pipeline.strategist.proposal import (
    Origin,
    Proposal,
    carried_on,
    text_hash,
)
from backtest_pipeline.strategist.strategist import Strategist

_DEFAULTS = LlmTerms()


class LlmStrategist(Strategist):
    """Asks a language model for a plan; there is always one.

    An answer that is no plan is asked for again with what is wrong with it. Where no answer is one,
    the previous terms hold on, or the plan waits, and the proposal says why.

    Args:
        model: who is asked: a `LiveModel`, or the `RecordedModel` of a transcript.
        terms: what is shown, and what no plan may exceed.
    """

    name = "llm"

    def __init__(self, model: AskedModel, terms: LlmTerms = _DEFAULTS) -> None:
        self.terms = terms
        self.model, self.reads = model.name, terms.features
        self._asked = model

    def plan(self, known: Known) -> Proposal:
        """The plan from the known instant on; see `Strategist.plan`.

        Raises:
            TranscriptMismatch: where a recorded model was asked something else.
            InvalidInput: for a feature of the terms that does not exist.
        """
        system = plan_prompt()
        went = converse(
            self._asked,
            system,
            question(known, self.terms),
            lambda text: plan_of_answer(text, known.occasion, self.terms),
        )
        if went.value is None:
            origin = Origin.FALLBACK
        else:
            origin = Origin.RETRIED if went.problem else Origin.VALID
        answers = [turn.text for turn in went.turns if turn.role == "assistant"]
        return Proposal(
            went.value or carried_on(known.occasion),
            origin,
            went.problem,
            model=self._asked.name,
            prompt_hash=text_hash(system),
            response_hash=text_hash("\0".join(answers)),
            transcript=transcript_of(self._asked.name, went.turns),
            use=went.use,
            replayed=self._asked.is_recorded,
            over_budget=went.over_budget,
        )


def replayed(known: Known, transcript: str, terms: LlmTerms = _DEFAULTS) -> Proposal:
    """The proposal of a recorded conversation, without asking any model.

    Args:
        known: what was known then.
        transcript: `Proposal.transcript` of then.
        terms: of then.

    Raises:
        TranscriptMismatch: where the prompt or what is known is not that of then.
    """
    return LlmStrategist(RecordedModel(transcript), terms).plan(known)
