"""What a cross-sectional strategy may say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backtest_pipeline.market.errors import InvalidInput, RuleError, UnknownName
from backtest_pipeline.strategies.cross_section.definition import CrossSection

MOMENTUM = CrossSection("momentum", score="close/shift(close, 20) - 1", count=20)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", "equl", "did you mean equal"),
        ("side", "short", "long"),
        ("rebalance", "dayly", "weekly"),
        ("rebalance", 0, "rebalance"),
        ("count", 0, "count"),
        ("quantiles", 1, "quantiles"),
        ("min_history", 10_001, "at most 10,000"),
        ("delisting_loss", 1.5, "at most 1"),
        ("delisting_loss", float("nan"), "delisting_loss"),
        ("tolerance", 1.0, "tolerance"),
        ("volatility", "nonsense(", "volatility is read only where weights is"),
    ],
)
def test_a_field_out_of_bounds_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises((InvalidInput, UnknownName), match=message):
        replace(MOMENTUM, **{field: value})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("score", "close > open"),
        ("universe", "close"),
        ("score", "close +"),
        ("universe", "volum > 1"),
    ],
)
def test_an_expression_that_cannot_be_read_is_refused_with_its_place(field: str, text: str) -> None:
    with pytest.raises(RuleError, match=f"momentum: {field}"):
        _ = replace(MOMENTUM, **{field: text})


def test_spelling_changes_no_version_and_each_field_does() -> None:
    same = replace(MOMENTUM, score="((close / shift(close, 20)) - 1)", description="trends")
    assert same.version == MOMENTUM.version
    other: dict[str, Any] = {
        "score": "close / shift(close, 21) - 1", "rebalance": "monthly", "count": 10,
        "quantiles": 4, "side": "long_short", "weights": "score", "universe": "volume > 1",
        "min_history": 2, "horizon": 2, "delisted_after": 2, "delisting_loss": 0.5,
        "tolerance": 0.01, "name": "other",
    }  # fmt: skip
    versions = {replace(MOMENTUM, **{name: value}).version for name, value in other.items()}
    assert len(versions | {MOMENTUM.version}) == len(other) + 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tolerance": 0}, {"tolerance": -0.0}),
        ({"delisting_loss": 1}, {"delisting_loss": 1.0}),
        ({"delisting_loss": -0.0}, {}),
        ({"universe": "close > 1"}, {"universe": "(close>1.0)"}),
        (
            {"weights": "inverse_volatility"},
            {"weights": "inverse_volatility", "volatility": "(vol_log_roll_20)"},
        ),
    ],
)
def test_one_strategy_has_one_version_however_it_is_spelled(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    found = replace(MOMENTUM, **one), replace(MOMENTUM, **other)
    assert found[0].version == found[1].version
    assert found[0].document() == found[1].document()


def test_what_is_at_its_default_changes_no_hash() -> None:
    assert MOMENTUM.differing() == {"score": "(close / shift(close, 20)) - 1", "count": 20}


def test_a_document_gives_the_strategy_again() -> None:
    again = CrossSection.of_document("momentum", MOMENTUM.document())
    assert (again.version, again.document()) == (MOMENTUM.version, MOMENTUM.document())
