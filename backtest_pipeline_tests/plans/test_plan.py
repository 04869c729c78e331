"""A plan is refused with the place of what is wrong, and read back as it was written."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from backtest_pipeline.market.errors import PlanRefused
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.trading.sizing import AtrRisk, EqualWeight
from backtest_pipeline_tests.plans.examples import CROSSING, DIP, LEAVE, PLAN


def test_a_plan_is_read_back_from_its_document() -> None:
    limits = {"max_daily_loss_pct": 2.0}
    plan = plan_from(PLAN | {"limits": limits, "sizing": {"mode": "atr", "risk": 0.02}})
    assert plan_from(json.dumps(plan.document())) == plan
    assert plan.sized() == AtrRisk(risk=0.02)
    assert plan_from(PLAN).sized() == EqualWeight()


@pytest.mark.parametrize(
    "change",
    [
        {"triggers": [DIP | {"entry": "(rsi_14 < 30)"}, CROSSING, LEAVE]},
        {"min_hold_bars": 0, "sessions": [], "limits": {}},
        {"sizing": {"mode": "equal"}},
        {"effective_ts": "2024-01-31T23:59:59.999000+00:00"},
    ],
)
def test_a_default_left_out_and_another_spelling_give_the_same_id(change: dict[str, Any]) -> None:
    assert plan_from(PLAN | change).plan_id == plan_from(PLAN).plan_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"mode": "expression", "fraction": "0.01/( atr_14/close )"}, None),
        ({"mode": "expression", "fraction": "1 / 4"}, {"mode": "fixed", "fraction": 0.25}),
    ],
)
def test_a_sizing_is_one_however_it_is_spelled(
    one: dict[str, Any], other: dict[str, Any] | None
) -> None:
    other = other or {"mode": "expression", "fraction": "0.01 / (atr_14 / close)"}
    plan = plan_from(PLAN | {"sizing": one})
    assert plan == plan_from(PLAN | {"sizing": other})
    assert plan_from(json.dumps(plan.document())) == plan


def test_the_order_of_what_is_allowed_plays_no_part() -> None:
    one = plan_from(PLAN | {"allowed_symbols": ["A", "B"], "allowed_directions": ["long"]})
    other = plan_from(PLAN | {"allowed_directions": ["long"], "allowed_symbols": ["B", "A", "A"]})
    assert one.plan_id == other.plan_id


@pytest.mark.parametrize(
    "change",
    [
        {"triggers": [CROSSING, DIP, LEAVE]},  # the order is the priority
        {"stance": "wait"},
        {"limits": {"max_daily_loss_pct": 2.0}},
        {"sizing": {"mode": "fixed"}},
        {"generated_at": "2024-01-31T23:59:59.998Z"},
        {"allowed_symbols": ["S-ALPHA"]},
        {"min_hold_bars": 3},
    ],
)
def test_what_trades_otherwise_has_another_id(change: dict[str, Any]) -> None:
    assert plan_from(PLAN | change).plan_id != plan_from(PLAN).plan_id


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"generated_at": "2024-02-01T00:00:00Z"}, "would know the future (look-ahead)"),
        ({"valid_until": "2024-01-31T23:59:59.999Z"}, "valid_until: .* is not after effective_ts"),
        ({"effective_ts": "2024-01-31T23:59:59"}, "effective_ts: must have a time zone"),
        ({"effective_ts": "2024-01-31T23:59:59+01:00"}, "effective_ts: .* is not in UTC"),
        ({"effective_ts": 1706745599}, "effective_ts: write a stamp as text"),
        ({"regime": "sideways"}, "regime: must be 'bull'"),
        ({"stance": "brave"}, "stance: must be 'active'"),
        ({"triggers": [DIP, DIP]}, "triggers.1: the same as triggers.0"),
        ({"triggers": [DIP | {"stop_loss_pct": None}]}, "triggers.0: stop_loss_pct: every entry"),
        ({"allowed_symbols": []}, "allowed_symbols: nothing is allowed"),
        ({"allowed_categories": ["hope"]}, "allowed_categories.0: must be"),
        ({"max_trades_per_day": 2.5}, "max_trades_per_day: must be a whole number"),
        ({"sizing": {"mode": "fixed", "fraction": -1.0}}, "sizing: fraction must be above 0"),
        ({"sizing": {"mode": "expression", "fraction": "rsi"}}, "sizing: fraction, line 1"),
        (
            {"sizing": {"mode": "expression", "fraction": "mine / 2"}},
            "sizing: fraction, .*a column of your own is read through a strategy that declares it",
        ),
        ({"sizing": {"mode": "all"}}, "sizing: mode must be one of 'fixed', "),
        ({"plan_id": "p_1"}, "the id 'p_1' is not that of this plan"),
        ({"sizing": {"mode": "fixed", "fraction": "all"}}, "sizing.fraction: must be a number"),
        ({"comment": "buy"}, "comment: is no field here; leave it out"),
        ({"stanse": "wait"}, "stanse: is no field here; did you mean stance?"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_place(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PlanRefused, match=reason.replace("(", r"\(").replace(")", r"\)")):
        plan_from(PLAN | change)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "NaN", '"plan"', b"\xff", "{}" * 2])
def test_a_text_that_is_no_plan_is_refused(text: str | bytes) -> None:
    with pytest.raises(PlanRefused, match="the plan is refused"):
        plan_from(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"stance": "wait", "stance": "active"}', "stance"),
        ('{"limits": {"max_daily_loss_pct": 2.0, "max_daily_loss_pct": 9.0}}', "limits.max_daily"),
        (b'{"triggers": [{}, {"symbol": "A", "symbol": "B"}]}', "triggers.1.symbol"),
    ],
)
def test_a_key_that_is_there_twice_is_refused_with_its_place(text: str | bytes, place: str) -> None:
    with pytest.raises(PlanRefused, match=f"the plan is refused: {place}.*: is there twice"):
        plan_from(text)


def test_a_plan_made_in_python_takes_stamps() -> None:
    plan = plan_from(PLAN)
    later: Any = plan.valid_until + timedelta(days=1)
    given: dict[str, Any] = PLAN | {"valid_until": later}
    changed = Plan(**given)
    assert isinstance(changed.effective_ts, datetime)
    assert changed.effective_ts == plan.effective_ts
    assert changed.plan_id != plan.plan_id
