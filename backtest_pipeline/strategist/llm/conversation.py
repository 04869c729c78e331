"""A conversation with a language model: asked, checked, asked again; recorded and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from backtest_pipeline.market.errors import InvalidInput, TranscriptMismatch
from backtest_pipeline.strategist.proposal import NOTHING_USED, ModelUse, text_hash

TRANSCRIPT_VERSION = 1
MOST_ANSWER_CHARS = 100_000
"""Longest answer that is read; of a longer one no more is kept."""
_QUOTED_CHARS = 4_000  # of an answer that was no good, sent back with what is wrong with it
_MOST_PROBLEM_CHARS = 600

Role = Literal["system", "user", "assistant", "failure"]
Value = TypeVar("Value")


class Turn(NamedTuple):
    """One turn of a conversation; of a failed call the reason."""

    role: Role
    text: str


@dataclass(frozen=True)
class Answer:
    """What a call gave.

    Attributes:
        text: of the model; None if the call failed.
        failure: why it failed; empty if it did not.
        is_final: whether another call would be of no use.
        use: what the call used.
        over_budget: whether it was not made because the day's budget is used up.
    """

    text: str | None
    failure: str = ""
    is_final: bool = False
    use: ModelUse = NOTHING_USED
    over_budget: bool = False


Ask = Callable[[list[Turn]], Answer]
"""Asks for the next answer in a conversation; its deadline began with it."""


class AskedModel(Protocol):
    """A language model, live or recorded.

    Attributes:
        name: `PROVIDER:MODEL`.
        max_calls: most calls in one conversation.
        is_recorded: whether it only repeats what was recorded.
    """

    name: str
    max_calls: int
    is_recorded: bool

    def begin(self) -> Ask:
        """A conversation."""
        ...


@dataclass(frozen=True)
class Conversation(Generic[Value]):
    """How a conversation went.

    Attributes:
        value: what was read of the last answer; None if no answer was any good.
        problem: what was wrong with the last answer that was no good; empty if all were good.
        turns: all turns in order.
        use: what all calls used.
        over_budget: whether it ended because the day's budget is used up.
    """

    value: Value | None
    problem: str
    turns: tuple[Turn, ...]
    use: ModelUse
    over_budget: bool = False


def converse(
    model: AskedModel,
    system: str,
    question: str,
    read: Callable[[str], Value],
) -> Conversation[Value]:
    """Ask until an answer can be read, as often as the model allows.

    Args:
        model: who is asked.
        system: what it is told to do.
        question: what it is asked.
        read: makes a value of an answer's text; raises InvalidInput with what is wrong with it.

    Raises:
        TranscriptMismatch: where a recorded model was asked something else.
    """
    ask = model.begin()
    turns = [Turn("system", system), Turn("user", question)]
    use, problem, over_budget = NOTHING_USED, "", False
    for call in range(model.max_calls):
        answer = ask(turns)
        use += answer.use
        if answer.text is None:
            problem, over_budget = answer.failure, answer.over_budget
            turns.append(Turn("failure", problem))
            if answer.is_final:
                break
            continue
        text = _storable(answer.text[: MOST_ANSWER_CHARS + 1])
        turns.append(Turn("assistant", text))
        try:
            return Conversation(read(text), problem, tuple(turns), use)
        except InvalidInput as error:
            problem = printable(str(error))
        if call + 1 < model.max_calls:
            turns.append(Turn("user", _correction(problem)))
    return Conversation(None, problem, tuple(turns), use, over_budget)


def _correction(problem: str) -> str:
    return (
        f"That answer cannot be used: {problem}\n"
        "Answer again with the whole JSON object alone, corrected."
    )


def sent(turns: list[Turn]) -> list[Turn]:
    """The turns as a model is sent them: without failed calls, its own long answers shortened."""
    return [
        Turn(turn.role, turn.text[:_QUOTED_CHARS]) if turn.role == "assistant" else turn
        for turn in turns
        if turn.role != "failure"
    ]


def printable(text: str) -> str:
    """A message on one line that can be stored and shown anywhere.

    Examples:
        >>> printable("a\\x00b\\nc")
        'a b c'
    """
    shown = "".join(c if c.isprintable() else " " for c in text[: 2 * _MOST_PROBLEM_CHARS])
    return shown if len(shown) <= _MOST_PROBLEM_CHARS else shown[: _MOST_PROBLEM_CHARS - 3] + "..."


def _storable(text: str) -> str:
    """A text without what is no character, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def transcript_of(model: str, turns: tuple[Turn, ...]) -> str:
    """A conversation as canonical JSON: the same turns always give the same text.

    It has no ids, times or counts of tokens, which differ from call to call.
    """
    content = {
        "version": TRANSCRIPT_VERSION,
        "model": model,
        "turns": [[turn.role, turn.text] for turn in turns],
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


class RecordedModel:
    """The model of a transcript: it gives the recorded answers to the recorded questions.

    Args:
        transcript: as `transcript_of` gave it.

    Raises:
        TranscriptMismatch: for a text that is no transcript.

    Examples:
        >>> text = transcript_of("openai:m", (Turn("system", "s"), Turn("user", "q"),
        ...     Turn("assistant", "7")))
        >>> converse(RecordedModel(text), "s", "q", int).value
        7
    """

    is_recorded = True

    def __init__(self, transcript: str) -> None:
        try:
            content = json.loads(transcript)
            version, self.name = content["version"], str(content["model"])
            self._turns = [Turn(role, text) for role, text in content["turns"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TranscriptMismatch(
                f"this is no recorded conversation ({type(error).__name__}); plan anew"
            ) from error
        if version != TRANSCRIPT_VERSION:
            raise TranscriptMismatch(
                f"the conversation was recorded in version {version!r}, and this code reads "
                f"version {TRANSCRIPT_VERSION}; replay it with the release that recorded it"
            )
        self.max_calls = sum(turn.role in ("assistant", "failure") for turn in self._turns)

    def begin(self) -> Ask:
        """The recorded conversation; it uses nothing."""
        return self._answer

    def _answer(self, turns: list[Turn]) -> Answer:
        before, rest = self._turns[: len(turns)], self._turns[len(turns) :]
        if before != turns or not rest or rest[0].role not in ("assistant", "failure"):
            raise TranscriptMismatch(self._difference(turns))
        role, text = rest[0]
        if role == "assistant":
            return Answer(text)
        return Answer(None, text, is_final=len(rest) == 1)

    def _difference(self, turns: list[Turn]) -> str:
        for place, (now, then) in enumerate(zip(turns, self._turns, strict=False)):
            if now != then:
                what = {0: "the prompt", 1: "what was known"}.get(place, f"turn {place}")
                return (
                    f"the recorded conversation with {self.name} does not fit: {what} is another "
                    f"today than when it was recorded (hash {_short(then)}, today {_short(now)}); "
                    "replay it with the prompt and data of then, or plan anew"
                )
        return (
            f"the recorded conversation with {self.name} ends after {len(self._turns)} turns, and "
            "more would be asked today; replay it with the release that recorded it, or plan anew"
        )


def _short(turn: Turn) -> str:
    return text_hash(turn.text)[:8]
