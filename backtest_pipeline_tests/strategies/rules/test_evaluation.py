"""Expressions on panels: against a loop over bars, and what none of them may depend on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.features import FEATURES, build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.rules.evaluation import Settled
from backtest_pipeline.strategies.rules.operators import FALSE, TRUE, VALUE, ValueKind
from backtest_pipeline.strategies.rules.parser import parse
from backtest_pipeline.strategies.rules.program import Program
from backtest_pipeline_tests.market.features.panels import random_bars
from backtest_pipeline_tests.strategies.rules import by_loop
from backtest_pipeline_tests.strategies.rules.by_loop import by_loop as looped
from backtest_pipeline_tests.strategies.rules.by_loop import columns, computed, panel_of, rows_of

NAN = float("nan")
ANY = by_loop.numbers | by_loop.conditions


def same(found: list[Any], expected: list[Any]) -> bool:
    return len(found) == len(expected) and all(
        a == b or (None not in (a, b) and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9))
        for a, b in zip(found, expected, strict=True)
    )


@given(text=ANY, one=columns(), two=columns())
def test_expressions_agree_with_a_loop_over_the_bars_of_each_asset(
    text: str, one: dict[str, Any], two: dict[str, Any]
) -> None:
    panel = panel_of(rows_of(one), rows_of(two))
    assert same(computed(text, panel), looped(text, one) + looped(text, two))


@given(text=ANY, assets=st.lists(columns(), min_size=1, max_size=4), at=st.integers(0, 3))
def test_an_asset_has_the_same_values_alone_and_in_a_batch(
    text: str, assets: list[dict[str, Any]], at: int
) -> None:
    at %= len(assets)
    panel = panel_of(*map(rows_of, assets))
    alone = computed(text, panel_of(rows_of(assets[at])))
    assert computed(text, panel)[panel.offsets[at] : panel.offsets[at + 1]] == alone


@given(text=ANY, asset=columns(least=2), cut=st.integers(1, 24), data=st.data())
def test_no_expression_reads_the_future(
    text: str, asset: dict[str, Any], cut: int, data: st.DataObject
) -> None:
    n = len(asset["close"])
    cut = cut % n
    other = data.draw(columns(least=n - cut, most=n - cut))
    changed = {name: asset[name][:cut] + other[name] for name in asset}
    before = computed(text, panel_of(rows_of(asset)))[:cut]
    assert computed(text, panel_of(rows_of(changed)))[:cut] == before
    assert computed(text, panel_of({k: v[:cut] for k, v in rows_of(asset).items()})) == before


@pytest.fixture(scope="module")
def features() -> Panel:
    return build_features(random_bars([700], seed=3))


EXACT = [
    *("close", "rsi_14", "adx_14", "vol_gk_63", "ema_37", "rsi_5", "atr_21", "ema(11)"),
    *("shift(close, 0)", "shift(rsi_14, 7)", "mean(close, 10)", "mean(close, 10, prior=True)"),
    *("highest(high, 1, prior=True)", "sum(shift(close, 3), 5)", "std(ret_log, 20, ddof=1)"),
    *("quantile(rsi_7, 30, 0.2)", "ema(close, 12)", "ema(ema(close, 12) - ema(close, 26), 9)"),
    *("wilder(true_range, 14)", "close > ema_50", "crosses_above(ema_9, ema_21)"),
    *("crosses_below(close, mean(close, 20))", "not shift(close > open, 4)", "close / 2 + atr(14)"),
    *("rsi_14 if close > ema_50 else -rsi_14", "40 < rsi_14 <= 60", "mean(3, 20)"),
]


@pytest.mark.parametrize("text", EXACT)
def test_the_first_defined_row_is_what_the_look_back_says(features: Panel, text: str) -> None:
    from backtest_pipeline.market.features import with_indicators

    program = Program()
    step = parse(program, text, {}, "rule")
    settled = Settled(program, {})
    is_number = program.kinds[step] is ValueKind.NUMBER
    wanted = [(step, VALUE)] if is_number else [(step, TRUE), (step, FALSE)]
    panel = with_indicators(features, settled.columns(wanted))
    found = settled.computed(panel, wanted)
    defined = ~np.isnan(found[0]) if is_number else found[0] | found[1]
    lookback = settled.lookback(wanted)
    assert lookback is not None
    assert np.flatnonzero(defined)[0] == lookback.rows - 1
    assert defined[lookback.rows :].all()


@pytest.mark.parametrize("text", EXACT)
def test_only_what_is_recursive_depends_on_more_than_its_look_back(text: str) -> None:
    from backtest_pipeline.market.features import with_indicators

    program = Program()
    step = parse(program, text, {}, "rule")
    settled = Settled(program, {})
    is_number = program.kinds[step] is ValueKind.NUMBER
    wanted = [(step, VALUE)] if is_number else [(step, TRUE), (step, FALSE)]
    lookback = settled.lookback(wanted)
    assert lookback is not None
    whole = random_bars([400], seed=5)
    tail = whole.take(np.arange(400) >= 400 - lookback.rows)

    def last(bars: Panel) -> list[Any]:
        known = with_indicators(build_features(bars), settled.columns(wanted))
        return [float(found[-1]) for found in settled.computed(known, wanted)]

    if not lookback.recursive:
        assert last(tail) == last(whole)
    elif is_number:
        assert last(tail) != last(whole)


def test_the_look_back_of_a_feature_is_that_of_the_catalogue() -> None:
    for feature in FEATURES:
        program = Program()
        step = parse(program, feature.name, {}, "rule")
        facet = VALUE if program.kinds[step] is ValueKind.NUMBER else TRUE
        found = Settled(program, {}).lookback([(step, facet)])
        assert found == (feature.rows, feature.recursive), feature.name


UNDEFINED_RSI = {"rsi_14": [NAN, 80.0, 20.0], "close": [5.0, 5.0, 5.0]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not (rsi_14 > 70)", [None, False, True]),
        ("rsi_14 > 70 or close > 1", [True, True, True]),
        ("rsi_14 > 70 or close > 9", [None, True, False]),
        ("rsi_14 > 70 and close > 9", [False, False, False]),
        ("rsi_14 > 70 and close > 1", [None, True, False]),
        ("0 < rsi_14 < 70", [None, False, True]),
        ("1 if rsi_14 > 70 else 0", [None, 1.0, 0.0]),
        ("close > 1 if rsi_14 > 70 else close > 9", [None, True, False]),
        ("close > 9 if rsi_14 > 70 else close > 1", [None, False, True]),
        ("not crosses_above(rsi_14, close)", [None, None, True]),
        ("max(rsi_14, close)", [None, 80.0, 20.0]),
        ("close / (rsi_14 - 80)", [None, None, 5 / -60]),
        ("0 / (rsi_14 - 80)", [None, None, 0.0]),
        ("sqrt(rsi_14 - 50)", [None, math.sqrt(30), None]),
        ("log(rsi_14 - 20)", [None, math.log(60), None]),
        ("rsi_14 * 1e300 * 1e300", [None, None, None]),
        ("ema(rsi_14 * 1e300 * 1e300 - close, 1)", [None, None, None]),
        ("shift(rsi_14 > 70, 1)", [None, None, True]),
    ],
)
def test_what_is_undefined_stays_undefined(text: str, expected: list[Any]) -> None:
    assert computed(text, panel_of(UNDEFINED_RSI)) == expected


def test_an_overflow_leaves_a_recursion_as_a_missing_value_does() -> None:
    close = [1.0, 2.0, 1e308, 2.0, 3.0, 4.0]
    found = computed("ema(close * 10, 2)", panel_of({"close": close}))
    missing = computed("ema(close * 10, 2)", panel_of({"close": [1.0, 2.0, NAN, 2.0, 3.0, 4.0]}))
    assert found == missing
    assert found[-1] is not None


def test_an_own_column_may_hold_what_no_feature_does() -> None:
    own = {"score": ValueKind.NUMBER, "in_index": ValueKind.CONDITION}
    panel = panel_of({"score": [math.inf, -math.inf, 1.0], "in_index": [NAN, 0.0, 1.0]})
    assert computed("score", panel, own) == [None, None, 1.0]
    assert computed("in_index", panel, own) == [None, False, True]
    counts = Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, {"score": np.arange(3)})
    assert computed("mean(score, 2)", counts, own) == [None, 0.5, 1.5]


def test_only_the_branch_that_parameters_choose_is_read() -> None:
    program = Program()
    names: dict[str, int | ValueKind] = {"deep": program.parameter("deep", ValueKind.CONDITION)}
    step = parse(program, "close > (ema_200 if deep else ema_9)", names, "rule")
    for deep, column, rows in ((True, "ema_200", 200), (False, "ema_9", 9)):
        settled = Settled(program, {"deep": deep})
        assert settled.columns([(step, TRUE)]) == ("close", column)
        assert settled.lookback([(step, TRUE)]) == (rows, True)
        panel = panel_of({"close": [3.0], column: [2.0]})
        assert settled.computed(panel, [(step, TRUE)])[0].tolist() == [True]


def test_equal_parts_are_computed_once() -> None:
    program = Program()
    first = parse(program, "mean(close, 20) + mean(close, 20) > 1", {}, "rule")
    n_steps = len(program.steps)
    again = parse(program, "mean(close, 2 * 10)+mean((close), 20)>1", {}, "rule")
    assert again == first
    assert [step.operator for step in program.steps[:n_steps]].count("mean") == 1
    assert all(step.operator == "constant" for step in program.steps[n_steps:])


def test_a_panel_without_rows_has_no_values() -> None:
    panel = panel_of({"close": []}, {"close": []})
    for text in ("crosses_above(close, mean(close, 3))", "quantile(close, 5, 0.5)", "shift(1, 3)"):
        assert computed(text, panel) == []
    assert len(computed("1 < 2", panel_of({"close": [1.0, 2.0]}))) == 2
