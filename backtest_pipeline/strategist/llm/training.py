"""How far a model's training can reach, so that results within it are flagged."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class TrainingCutoff:
    """What is published of a model's training.

    Attributes:
        model: `PROVIDER:NAME`.
        cutoff: month up to which the provider says that its knowledge is good, `2025-02`.
        released: when it was released. Its training has nothing later; it may have something later
            than the cutoff, because providers publish how far knowledge is reliable, not where the
            data end.
        source: where both are from.
        looked_up: when they were looked up.
    """

    model: str
    cutoff: str
    released: date
    source: str
    looked_up: date


@cache
def training_cutoffs() -> dict[str, TrainingCutoff]:
    """All models whose training is known, by `PROVIDER:NAME`.

    Names that a provider moves on to newer models are not among them.

    Examples:
        >>> training_cutoffs()["anthropic:claude-opus-4-6"].released
        datetime.date(2026, 2, 5)
    """
    text = (
        resources.files("backtest_pipeline.strategist.llm") / "training_cutoffs.csv"
    ).read_text()
    return {
        row["model"]: TrainingCutoff(
            row["model"],
            row["cutoff"],
            date.fromisoformat(row["released"]),
            row["source"],
            date.fromisoformat(row["looked_up"]),
        )
        for row in csv.DictReader(text.splitlines())
    }


def within_training(model: str, first_ts: datetime) -> bool:
    """Whether a model may have read in training what happened from an instant on.

    A result over bars that begin before the model's release is partly a memory test. A model whose
    training is not known counts as flagged, whatever the instant.

    Args:
        model: `PROVIDER:NAME`; `openai-chat` is `openai`.
        first_ts: stamp of the first bar that was traded on its plans, with a time zone.

    Examples:
        >>> within_training("anthropic:claude-opus-4-6", datetime(2024, 1, 1, tzinfo=UTC))
        True
        >>> within_training("anthropic:claude-opus-4-6", datetime(2026, 3, 1, tzinfo=UTC))
        False
        >>> within_training("anthropic:of-my-own", datetime(2026, 3, 1, tzinfo=UTC))
        True
    """
    provider, _, name = model.partition(":")
    own = "openai" if provider == "openai-chat" else provider
    known = training_cutoffs().get(f"{own}:{name}")
    return known is None or first_ts.astimezone(UTC).date() <= known.released
