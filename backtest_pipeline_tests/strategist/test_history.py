from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.features.derive import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.plans.plan_sequence import in_order
from backtest_pipeline.plans.vocabulary import ReplanReason, Stance
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.planned.planned_book import simulate_planned
from backtest_pipeline.strategist.history import PlanHistory, plan_history
from backtest_pipeline.strategist.judge import JudgeSettings
from backtest_pipeline.strategist.known import Known, microseconds_of
from backtest_pipeline.strategist.proposal import Proposal
from backtest_pipeline.strategist.regime_rules import RegimeRules, RulesSettings
from backtest_pipeline.strategist.regimes import RegimeSettings
from backtest_pipeline.strategist.replans import ReplanSettings
from backtest_pipeline.strategist.standing import BookPath
from backtest_pipeline.strategist.strategist import Strategist
from backtest_pipeline_tests.strategist.markets import of_closes, random_market, up_to

QUICK = RulesSettings(
    regimes=RegimeSettings(volatility_window=20, drawdown_window=20, confirm_bars=1)
)
RULES = RegimeRules(QUICK)
MARKET = random_market(1, 420, seed=8)


class Slowly(Strategist):
    """The same plans, asked for at each instant one by one."""

    name = "slowly"

    def plan(self, known: Known) -> Proposal:
        assert known.panels["1D" if "1D" in known.panels else "4H"].ts.max() == (
            known.occasion.instant_us
        )
        return RULES.plan(known)


def planned(panel: Panel, **given: object) -> PlanHistory:
    return plan_history(RULES, {panel.timeframe.name: panel}, **given)  # pyright: ignore[reportArgumentType]


def hard(plans: Sequence[Plan]) -> BookPath:
    """A book that loses from day to day, and more than allowed on some."""
    ts = np.unique(HOURS.ts)
    moves = np.where(np.arange(len(ts)) % 31 == 3, 0.97, 1.0)
    zeros = np.zeros(len(ts), np.int64)
    return BookPath(ts, 100 * np.cumprod(moves), zeros, zeros, zeros, zeros, zeros)


HOURS = random_market(1, 900, seed=4, tf="4H")


def test_plans_begin_with_the_first_bar_and_follow_in_order() -> None:
    history = planned(MARKET)
    plans = history.plans
    assert in_order(plans) == plans
    assert len(plans) > 5
    assert history.records[0].reasons == (ReplanReason.INITIAL_PLAN,)
    assert microseconds_of(plans[0].effective_ts) == MARKET.ts[0]
    assert plans[0].stance is Stance.WAIT
    for plan in plans:
        assert plan_from(plan.document()) == plan
        assert plan.generated_at == plan.effective_ts


def test_each_day_is_a_plan_or_counted_as_suppressed() -> None:
    history = planned(MARKET)
    suppressed = sum(record.suppressed for record in history.records)
    assert len(history.records) + suppressed == len(MARKET)
    for record in history.records:
        assert record.suppressed_reasons.get(ReplanReason.NEW_DAY, 0) == record.suppressed


def test_a_plan_is_in_force_at_every_bar_where_bars_follow_each_other() -> None:
    plans = planned(MARKET).plans
    for before, after in pairwise(plans):
        assert before.valid_until > after.effective_ts
    assert microseconds_of(plans[-1].valid_until) > MARKET.ts[-1]


def test_the_fast_way_is_that_of_asking_at_each_instant() -> None:
    for panel, first in ((MARKET, 360), (HOURS, 90), (random_market(3, 260, seed=2), 200)):
        stored = planned(up_to(panel, first)).records
        slow = plan_history(Slowly(), {panel.timeframe.name: panel}, stored=stored)
        assert [summary(r) for r in planned(panel).records] == [summary(r) for r in slow.records]
        assert len(slow.asked) == len(np.unique(panel.ts // DAY_US)) - first
    fresh = up_to(MARKET, 5)
    slow = plan_history(Slowly(), {"1D": fresh})
    assert [summary(r) for r in planned(fresh).records] == [summary(r) for r in slow.records]


def summary(record: object) -> tuple[object, ...]:
    names = ("plan", "reasons", "asked_us", "suppressed", "suppressed_reasons", "judged_us")
    return tuple(getattr(record, name) for name in names)


def test_after_a_gap_that_is_longer_than_a_plan_is_valid_a_new_one_begins() -> None:
    gap = (MARKET.ts > MARKET.ts[300]) & (MARKET.ts < MARKET.ts[310])
    history = planned(MARKET.take(~gap))
    expired = [r for r in history.records if ReplanReason.PLAN_EXPIRED in r.reasons]
    assert [microseconds_of(r.plan.effective_ts) for r in expired] == [MARKET.ts[310]]
    before = history.records[history.records.index(expired[0]) - 1].plan
    assert before.valid_until < expired[0].plan.effective_ts


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 420), min_size=1, max_size=4))
def test_continued_from_stored_plans_it_is_one_walk_from_the_start(cuts: list[int]) -> None:
    records = ()
    for day in [*sorted(cuts), 420]:
        records = planned(up_to(MARKET, day), stored=records).records
    assert [summary(r) for r in records] == [summary(r) for r in planned(MARKET).records]


def test_what_is_added_at_the_end_changes_no_plan_before() -> None:
    whole = planned(MARKET).plans
    part = planned(up_to(MARKET, 300)).plans
    assert part[:-1] == whole[: len(part) - 1]
    assert part[-1].effective_ts == whole[len(part) - 1].effective_ts


def test_the_judge_asks_within_a_day_and_once_a_day() -> None:
    history = planned(HOURS, follow=hard)
    judged = [a for a in history.asked if ReplanReason.JUDGE_TRIGGERED in a.reasons]
    days = [a.instant_us // 86_400_000_000 for a in judged]
    assert len(days) > 10
    assert len(set(days)) == len(days)
    within = [a for a in judged if a.reasons == (ReplanReason.JUDGE_TRIGGERED,)]
    assert within
    losing = np.unique(HOURS.ts)[np.arange(900) % 31 == 3]
    assert {a.instant_us for a in within if a.instant_us in losing}


def test_a_judged_history_can_be_continued_too() -> None:
    whole = planned(HOURS, follow=hard)
    assert any(ReplanReason.JUDGE_TRIGGERED in record.reasons for record in whole.records)
    for day in (40, 99):
        part = planned(up_to(HOURS, day), follow=hard)
        again = planned(HOURS, stored=part.records, follow=hard)
        assert [summary(r) for r in again.records] == [summary(r) for r in whole.records]


def simulated(plans: Sequence[Plan]) -> BookPath:
    """The daily market traded under plans, each order counted at the bar of its fill."""
    result = simulate_planned(DAILY, plans, SimulationConfig())
    ts, trades, blocks = result.book.ts, result.book.trades, result.blocks

    def counted(stamps: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(ts, stamps), minlength=len(ts))

    taken = counted(trades.entry_ts[~result.is_part])
    blocked = counted(DAILY.ts[blocks.row[~blocks.is_exit]])
    closed = ~trades.is_open
    won = counted(trades.exit_ts[closed & (trades.pnl > 0)])
    ended = counted(trades.exit_ts[closed])
    return BookPath(ts, result.book.equity[0], taken + blocked, blocked, taken, ended, won)


DAILY = with_indicators(MARKET, ("ema_21", "ema_50", "ema_200", "rsi_7", "rsi_14", "atr_14"))


def test_on_days_the_judge_is_heard_as_if_asked_at_each_bar() -> None:
    strict = ReplanSettings(judge=JudgeSettings(score_below=74.0, day_loss_pct=0.1))
    fast = planned(DAILY, settings=strict, follow=simulated)
    complaints = sum(
        record.suppressed_reasons.get(ReplanReason.JUDGE_TRIGGERED, 0) for record in fast.records
    )
    assert 20 < complaints < 300
    assert any(ReplanReason.JUDGE_TRIGGERED in record.reasons for record in fast.records)
    stored = planned(up_to(DAILY, 370), settings=strict, follow=simulated).records
    slow = plan_history(Slowly(), {"1D": DAILY}, strict, stored=stored, follow=simulated)
    again = planned(DAILY, settings=strict, stored=stored, follow=simulated)
    assert [summary(r) for r in slow.records] == [summary(r) for r in fast.records]
    assert [summary(r) for r in again.records] == [summary(r) for r in fast.records]
    by_instant = {asked.instant_us: asked.reasons for asked in slow.asked}
    later = [asked for asked in fast.asked if asked.instant_us in by_instant]
    assert later
    assert all(asked.reasons == by_instant[asked.instant_us] for asked in later)


def test_the_judge_hears_of_each_new_plan() -> None:
    followed: list[list[Plan]] = []

    def follow(plans: Sequence[Plan]) -> BookPath:
        followed.append(list(plans))
        return hard(plans)

    history = planned(HOURS, follow=follow)
    assert [len(plans) for plans in followed] == list(range(1, len(history.records) + 1))
    last_bar = int(HOURS.ts[-1])
    assert all(microseconds_of(plans[-1].valid_until) > last_bar for plans in followed)


def test_without_new_days_plans_follow_where_one_expires() -> None:
    rarely = ReplanSettings(new_day=False, judge=None, valid_days=30.0)
    history = planned(MARKET, settings=rarely)
    assert {r.reasons for r in history.records[1:]} == {(ReplanReason.PLAN_EXPIRED,)}
    assert len(history.records) == 14


def test_a_book_without_bars_has_no_plan() -> None:
    nothing = of_closes({"A": [1.0, 2.0]}).take(np.zeros(2, bool))
    assert planned(nothing).records == ()
    assert plan_history(RULES, {"1D": nothing}, follow=hard).records == ()
    with pytest.raises(Exception, match="no timeframe"):
        plan_history(RULES, {})
