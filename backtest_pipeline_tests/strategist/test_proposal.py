from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest

from backtest_pipeline.market.errors import PlanRefused
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.plans.vocabulary import Category, ReplanReason, Stance
from backtest_pipeline.strategist.known import Occasion, microseconds_of, stamp_of
from backtest_pipeline.strategist.proposal import (
    ModelUse,
    Proposal,
    carried_on,
    changes_nothing,
    enabled_entries,
    plan_of,
    require_followable,
    terms_of,
)
from backtest_pipeline_tests.plans.examples import DIP, LEAVE, PLAN

BEFORE = plan_from(PLAN)
NOW_US = microseconds_of(BEFORE.effective_ts) + 86_400_000_000


def occasion(previous: Plan | None = BEFORE, instant_us: int = NOW_US) -> Occasion:
    reasons = (ReplanReason.NEW_DAY,)
    return Occasion(instant_us, ("S-ALPHA",), ("1D",), reasons, timedelta(days=3), previous)


def changed(**fields: Any) -> Plan:
    return plan_from({**PLAN, **fields})


def test_a_plan_begins_at_the_known_instant_and_ends_after_its_validity() -> None:
    plan = plan_of(occasion(), terms_of(BEFORE))
    assert plan.generated_at == plan.effective_ts == stamp_of(NOW_US)
    assert plan.valid_until - plan.effective_ts == timedelta(days=3)
    assert changes_nothing(plan, BEFORE)
    assert plan.plan_id != BEFORE.plan_id


def test_a_plan_of_a_bar_that_is_decided_begins_right_after_it() -> None:
    plan = plan_of(occasion(instant_us=microseconds_of(BEFORE.effective_ts)), terms_of(BEFORE))
    assert plan.generated_at == BEFORE.effective_ts
    assert plan.effective_ts == BEFORE.effective_ts + timedelta(milliseconds=1)


def test_without_an_answer_the_previous_terms_hold_on_and_without_them_nothing_is_traded() -> None:
    assert changes_nothing(carried_on(occasion()), BEFORE)
    waits = carried_on(occasion(previous=None))
    assert (waits.stance, waits.triggers) == (Stance.WAIT, ())


@pytest.mark.parametrize(
    "fields",
    [
        {"stance": "defensive"},
        {"triggers": [DIP, LEAVE]},
        {"triggers": PLAN["triggers"][::-1]},
        {"limits": {"max_daily_loss_pct": 3.0}},
        {"max_trades_per_day": 3},
        {"min_hold_bars": 1},
        {"sizing": {"mode": "fixed", "fraction": 0.5}},
        {"allowed_directions": ["long"]},
        {"allowed_categories": ["reversal", "mean_reversion"]},
    ],
)
def test_whatever_is_traded_otherwise_is_a_change(fields: dict[str, Any]) -> None:
    assert not changes_nothing(changed(**fields), BEFORE)


def test_another_regime_or_another_time_alone_is_none() -> None:
    assert changes_nothing(changed(regime="bull", valid_until="2024-03-29T00:00:00Z"), BEFORE)


def test_two_categories_of_entries_stay_enabled_unless_a_plan_waits() -> None:
    assert enabled_entries(BEFORE) == {Category.MEAN_REVERSION, Category.TREND_CONTINUATION}
    require_followable(BEFORE, occasion())
    for fields in ({"triggers": [DIP, LEAVE]}, {"allowed_categories": ["mean_reversion"]}):
        with pytest.raises(PlanRefused, match=r"1 enabled categories of entries \(mean_reversion"):
            require_followable(changed(**fields), occasion())
        require_followable(changed(**fields, stance="wait"), occasion())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"triggers": [{**DIP, "symbol": "S-BETA"}]}, "triggers.0.symbol: 'S-BETA' is not in"),
        ({"triggers": [DIP, {**DIP, "timeframe": "4H"}]}, "triggers.1.timeframe: '4H' is not in"),
        ({"allowed_symbols": ["S-ALPHA", "S-BETA"]}, "allowed_symbols: 'S-BETA' is not in"),
    ],
)
def test_what_is_not_in_the_book_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(PlanRefused, match=reason):
        require_followable(changed(**fields), occasion())


def test_a_transcript_is_known_by_its_text() -> None:
    one, other = (Proposal(BEFORE, transcript=text) for text in ("[1]", "[2]"))
    assert one.transcript_hash == hashlib.sha256(b"[1]").hexdigest() != other.transcript_hash
    assert Proposal(BEFORE).transcript_hash is None
    assert ModelUse(1, 10, 5).tokens == 15
