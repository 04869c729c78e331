from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from backtest_pipeline.strategist.llm.training import training_cutoffs, within_training


def test_each_row_has_a_source_and_a_date_and_a_cutoff_before_the_release() -> None:
    table = training_cutoffs()
    assert len(table) > 40
    for name, row in table.items():
        provider, _, model = name.partition(":")
        assert provider in ("anthropic", "openai")
        assert model
        assert not model.endswith("latest")
        assert row.source.endswith(f"{model}.toml")
        cutoff = datetime.strptime(row.cutoff, "%Y-%m").replace(tzinfo=UTC).date()
        assert cutoff < row.released <= row.looked_up


@pytest.mark.parametrize(
    ("model", "first", "flagged"),
    [
        ("openai:gpt-5", datetime(2025, 8, 7, 23, tzinfo=UTC), True),
        ("openai:gpt-5", datetime(2025, 8, 8, tzinfo=UTC), False),
        ("openai-chat:gpt-5", datetime(2025, 8, 8, tzinfo=UTC), False),
        ("openai:gpt-5", datetime(2025, 8, 8, tzinfo=timezone(timedelta(hours=2))), True),
        ("openai:gpt-5-latest", datetime(2030, 1, 1, tzinfo=UTC), True),
        ("", datetime(2030, 1, 1, tzinfo=UTC), True),
    ],
)
def test_what_a_model_may_have_read_is_flagged_and_an_unknown_model_too(
    model: str, first: datetime, flagged: bool
) -> None:
    assert within_training(model, first) is flagged
