from __future__ import annotations

import json
from itertools import pairwise

import pytest

from backtest_pipeline.market.errors import TranscriptMismatch
from backtest_pipeline.strategist.llm.conversation import (
    MOST_ANSWER_CHARS,
    Answer,
    Ask,
    Conversation,
    RecordedModel,
    Turn,
    converse,
    printable,
    sent,
    transcript_of,
)
from backtest_pipeline.strategist.proposal import NOTHING_USED, ModelUse
from backtest_pipeline_tests.strategist.llm.reading import whole_number


class Fixed:
    """A model with fixed answers."""

    name = "openai:fixed"
    is_recorded = False

    def __init__(self, *answers: Answer | str, max_calls: int = 3) -> None:
        self.answers = [
            Answer(a, use=ModelUse(1, 10, 5)) if isinstance(a, str) else a for a in answers
        ]
        self.max_calls = max_calls
        self.asked: list[list[Turn]] = []

    def begin(self) -> Ask:
        def ask(turns: list[Turn]) -> Answer:
            self.asked.append(list(turns))
            return self.answers[len(self.asked) - 1]

        return ask


def went(*answers: Answer | str, max_calls: int = 3) -> Conversation[int]:
    return converse(Fixed(*answers, max_calls=max_calls), "be brief", "how many?", whole_number)


BUSY = Answer(None, "HTTP 429: the provider's limit is reached")
NEVER = Answer(None, "no answer within 60 s", is_final=True)
CASES = [
    ("7",),
    ("seven", "7"),
    ("seven", "eight", "nine"),
    (BUSY, "7"),
    ("seven", BUSY, "8"),
    (BUSY, BUSY, BUSY),
    ("seven", NEVER),
    (NEVER,),
]


def test_it_ends_with_the_first_answer_that_can_be_read() -> None:
    one, other = went("7"), went("seven", "8")
    assert (one.value, one.problem, one.use) == (7, "", ModelUse(1, 10, 5))
    assert (other.value, other.problem) == (8, "seven is no number")
    assert other.use == ModelUse(2, 20, 10)
    assert [turn.role for turn in other.turns] == [
        *("system", "user", "assistant", "user", "assistant"),
    ]
    assert "seven is no number" in other.turns[3].text


def test_it_asks_as_often_as_it_may_and_no_more_after_what_cannot_get_better() -> None:
    assert went("a", "b", "c").value is None
    assert went("a", "b", max_calls=2).problem == "b is no number"
    ended = went("a", NEVER, "7")
    assert (ended.value, ended.problem) == (None, "no answer within 60 s")
    assert went(BUSY, "7").value == 7


@pytest.mark.parametrize("answers", CASES)
def test_a_recorded_conversation_goes_the_same_way_and_uses_nothing(
    answers: tuple[Answer | str, ...],
) -> None:
    live = went(*answers)
    model = RecordedModel(transcript_of("openai:fixed", live.turns))
    again = converse(model, "be brief", "how many?", whole_number)
    assert (again.value, again.problem, again.turns) == (live.value, live.problem, live.turns)
    assert again.use == NOTHING_USED
    assert model.name == "openai:fixed"


def test_equal_conversations_have_equal_transcripts() -> None:
    texts = {transcript_of("openai:fixed", went(*answers).turns) for answers in CASES for _ in "ab"}
    assert len(texts) == len(CASES)
    for one, other in pairwise(sorted(texts)):
        assert one != other
    assert all(text.isascii() for text in texts)


@pytest.mark.parametrize(
    ("system", "question", "reason"),
    [
        ("be long", "how many?", "the prompt is another today"),
        ("be brief", "how many now?", "what was known is another today"),
    ],
)
def test_another_prompt_or_question_is_a_named_error(
    system: str, question: str, reason: str
) -> None:
    transcript = transcript_of("openai:fixed", went("7").turns)
    with pytest.raises(TranscriptMismatch, match=reason):
        converse(RecordedModel(transcript), system, question, whole_number)


def test_a_reader_that_refuses_what_it_took_then_is_a_named_error() -> None:
    transcript = transcript_of("openai:fixed", went("seven", "7").turns)
    other = json.loads(transcript)
    other["turns"][3][1] = "Please?"
    with pytest.raises(TranscriptMismatch, match="turn 3 is another today"):
        converse(RecordedModel(json.dumps(other)), "be brief", "how many?", whole_number)


@pytest.mark.parametrize(
    ("transcript", "reason"),
    [
        ("", "no recorded conversation"),
        ("[]", "no recorded conversation"),
        ('{"version": 1, "model": "m"}', "no recorded conversation"),
        ('{"version": 9, "model": "m", "turns": []}', "recorded in version 9"),
        ('{"version": 1, "model": "m", "turns": [[1]]}', "no recorded conversation"),
    ],
)
def test_what_is_no_transcript_is_refused(transcript: str, reason: str) -> None:
    with pytest.raises(TranscriptMismatch, match=reason):
        RecordedModel(transcript)


def test_a_recording_without_answers_gives_none() -> None:
    empty = RecordedModel(transcript_of("m", (Turn("system", "s"), Turn("user", "q"))))
    with pytest.raises(TranscriptMismatch, match="ends after 2 turns"):
        empty.begin()([Turn("system", "s"), Turn("user", "q")])


def test_of_a_long_answer_little_is_kept_and_less_sent_back() -> None:
    long = went("x" * 2_000_000, "7")
    kept = long.turns[2]
    assert len(kept.text) == MOST_ANSWER_CHARS + 1
    assert len(sent(list(long.turns))[2].text) == 4_000
    assert sent([*long.turns, Turn("failure", "HTTP 429")])[-1].role == "assistant"


def test_text_that_no_file_can_hold_is_changed() -> None:
    turns = went("\ud800", "7").turns
    assert turns[2].text == "?"
    assert printable("a\x00b\u202ec\n" + "y" * 2_000)[:6] == "a b c "
    assert len(printable("y" * 2_000)) == 600
