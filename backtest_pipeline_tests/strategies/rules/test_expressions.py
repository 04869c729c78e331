"""Expressions that stand alone."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput, RuleError
from backtest_pipeline.strategies.rules.expressions import NumberExpression
from backtest_pipeline_tests.simulation.markets import random_panel


def test_an_expression_is_a_number_at_each_bar_of_its_own_asset() -> None:
    panel = random_panel(np.random.default_rng(3), [40, 25])
    found = NumberExpression("close / shift(close, 2) - 1", "sizing").values(panel)
    for asset in panel.assets:
        close = panel["close"][panel.rows_of(asset)]
        np.testing.assert_array_equal(found[panel.rows_of(asset)][2:], close[2:] / close[:-2] - 1)
        assert np.isnan(found[panel.rows_of(asset)][:2]).all()


def test_it_reads_columns_of_a_user_s_own() -> None:
    panel = random_panel(np.random.default_rng(3), [40])
    expression = NumberExpression("score * 0.1", "sizing")
    assert expression.reads == ("score",)
    scored = panel.with_columns({"score": np.arange(40.0)})
    np.testing.assert_array_equal(expression.values(scored), np.arange(40.0) * 0.1)
    with pytest.raises(InvalidInput, match="sizing: no feature 'score'"):
        expression.values(panel)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("close > open", "this is a condition and must be a number"),
        ("shift(close, -1)", "a later bar is the future"),
        ("close +", "sizing"),
    ],
)
def test_what_is_no_number_is_refused(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        NumberExpression(text, "sizing")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.02 * 2", 0.04),
        ("-(-1 / 4)", 0.25),
        ("sqrt(0.0004) if 1 < 2 else close", 0.02),
        ("1e-3", 0.001),
        ("inf", None),  # a column may have that name
        ("close / close", None),
        ("0 * close", None),  # undefined where there is no close
        ("shift(0.04, 1)", None),
    ],
)
def test_what_is_one_number_at_all_bars_is_told(text: str, number: float | None) -> None:
    assert NumberExpression(text, "stop_loss").constant == number
