from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.plans.vocabulary import Regime, ReplanReason, Stance
from backtest_pipeline.strategist.known import Occasion, known_at
from backtest_pipeline.strategist.proposal import enabled_entries, terms_of
from backtest_pipeline.strategist.regime_rules import RULES_BY_REGIME, RegimeRules, RulesSettings
from backtest_pipeline.strategist.regimes import UNKNOWN
from backtest_pipeline.trading.direction import Direction
from backtest_pipeline_tests.strategist.markets import random_market, up_to

PANEL = random_market(4, 500, seed=3)
OCCASION = Occasion(
    int(PANEL.ts[400]), ("A", "B"), ("1H", "1D"), (ReplanReason.MANUAL,), timedelta(days=7)
)
STATES = [2 * code + fallen for code in range(len(Regime)) for fallen in (0, 1)]


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("state", STATES)
def test_every_plan_is_valid_and_keeps_two_categories_of_entries(
    direction: Direction, state: int
) -> None:
    plan = RegimeRules(RulesSettings(direction=direction)).plan_in(state, OCCASION).plan
    assert plan_from(plan.document()) == plan
    assert len(enabled_entries(plan)) >= 2
    assert plan.regime is list(Regime)[state // 2]
    assert {t.symbol for t in plan.triggers} == {"A", "B"}
    assert {t.timeframe for t in plan.triggers} == {"1H", "1D"}
    if direction is not Direction.BOTH:
        assert {t.direction for t in plan.triggers} <= {direction, Direction.BOTH}
    assert all(t.stop_loss_pct == 8.0 for t in plan.triggers if t.category.enters)


def test_a_defensive_plan_risks_half() -> None:
    calm, fallen = (RegimeRules().plan_in(state, OCCASION).plan for state in (0, 1))
    assert (calm.regime, calm.stance, fallen.stance) == (
        Regime.BULL,
        Stance.ACTIVE,
        Stance.DEFENSIVE,
    )
    assert calm.limits.max_position_risk_pct == 3.0
    assert fallen.limits.max_position_risk_pct == 1.5
    assert calm.document()["sizing"]["fraction"] == 0.25
    assert fallen.document()["sizing"]["fraction"] == 0.125


def test_a_fall_is_no_reason_for_defence_where_it_may_be_sold_short() -> None:
    bear = 2 * list(Regime).index(Regime.BEAR)
    short = RegimeRules(RulesSettings(direction=Direction.BOTH)).plan_in(bear, OCCASION).plan
    long = RegimeRules().plan_in(bear, OCCASION).plan
    assert (short.stance, long.stance) == (Stance.ACTIVE, Stance.DEFENSIVE)


def test_while_nothing_is_known_it_waits() -> None:
    plan = RegimeRules().plan_in(2 * UNKNOWN, OCCASION).plan
    assert (plan.regime, plan.stance, plan.triggers) == (Regime.MIXED, Stance.WAIT, ())


def test_an_entry_risks_less_than_its_limit_and_exposure_than_its_own() -> None:
    for risk in (0.01, 0.5, 2.0, 10.0):
        for stop in (0.5, 8.0, 50.0):
            given = RulesSettings(risk_per_trade_pct=risk, stop_loss_pct=stop)
            for state in STATES:
                plan = RegimeRules(given).plan_in(state, OCCASION).plan
                assert plan.sizing is not None
                fraction = plan.sizing.model_dump()["fraction"]
                limits = plan.limits
                assert fraction * stop <= (limits.max_position_risk_pct or 0)
                assert 100 * fraction <= (limits.max_symbol_exposure_pct or 0)


def test_later_bars_and_the_order_of_symbols_change_no_plan() -> None:
    reasons = (ReplanReason.MANUAL,)
    whole = PANEL.select(PANEL.assets[::-1])
    for day in (1, 150, 260, 420):
        instant = int(up_to(PANEL, day).ts.max())
        plans = [
            RegimeRules()
            .plan(known_at({"1D": p}, instant, reasons=reasons, valid_for=timedelta(days=7)))
            .plan
            for p in (PANEL, up_to(PANEL, day), whole)
        ]
        assert plans[0] == plans[1] == plans[2]


def test_states_are_those_of_plans_at_each_instant() -> None:
    rules = RegimeRules()
    instants = np.unique(PANEL.ts)[205::40]
    states = rules.states({"1D": PANEL}, instants)
    assert len(set(states.tolist())) > 2
    for instant, state in zip(instants.tolist(), states.tolist(), strict=True):
        known = known_at(
            {"1D": PANEL}, instant, reasons=(ReplanReason.MANUAL,), valid_for=timedelta(days=7)
        )
        assert terms_of(rules.plan(known).plan) == terms_of(
            rules.plan_in(state, known.occasion).plan
        )


def test_every_regime_has_rules() -> None:
    assert RULES_BY_REGIME.keys() == set(Regime)
