from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.strategist.known import microseconds_of
from backtest_pipeline.strategist.proposal import Proposal
from backtest_pipeline.strategist.replans import PlanRecord, ReplanSettings, due, settled
from backtest_pipeline_tests.plans.examples import PLAN

SETTINGS = ReplanSettings()
DAY = 86_400_000_000
START = {"generated_at": "2024-01-31T08:00:00Z", "effective_ts": "2024-01-31T08:00:00Z"}
BEGAN = plan_from({**PLAN, **START, "valid_until": "2024-02-03T08:00:00Z"})
BEGAN_US = microseconds_of(BEGAN.effective_ts)
RECORD = PlanRecord(BEGAN, (ReplanReason.INITIAL_PLAN,), Proposal(BEGAN), BEGAN_US)
NEW_DAY, JUDGE, EXPIRED = (
    ReplanReason.NEW_DAY,
    ReplanReason.JUDGE_TRIGGERED,
    ReplanReason.PLAN_EXPIRED,
)


def later(hours: float, **fields: object) -> tuple[int, Proposal]:
    """A proposal some hours later, of the same terms but for the fields."""
    at = BEGAN.effective_ts + timedelta(hours=hours)
    times = {"generated_at": at.isoformat(), "effective_ts": at.isoformat()}
    until = (at + timedelta(days=3)).isoformat()
    return microseconds_of(at), Proposal(
        plan_from({**PLAN, **times, "valid_until": until, **fields})
    )


@pytest.mark.parametrize(
    ("hours", "complains", "expected"),
    [
        (1, False, ()),
        (15.9, False, ()),
        (16, False, (NEW_DAY,)),
        (1, True, (JUDGE,)),
        (30, True, (NEW_DAY, JUDGE)),
        (72, False, (NEW_DAY, EXPIRED)),
    ],
)
def test_why_a_plan_is_due(
    hours: float, complains: bool, expected: tuple[ReplanReason, ...]
) -> None:
    at = BEGAN_US + int(hours * 3_600_000_000)
    assert due(RECORD, at, SETTINGS, ["low"] if complains else []) == expected
    assert due(None, at, SETTINGS) == (ReplanReason.INITIAL_PLAN,)


def test_without_new_days_a_plan_lasts_until_it_expires() -> None:
    rarely = ReplanSettings(new_day=False)
    assert due(RECORD, BEGAN_US + 2 * DAY, rarely) == ()
    assert due(RECORD, BEGAN_US + 3 * DAY, rarely) == (EXPIRED,)


def test_the_judge_is_heard_once_a_day() -> None:
    at, proposal = later(2)
    judged, was_suppressed = settled(RECORD, proposal, (JUDGE,), at)
    assert was_suppressed
    assert due(judged, at + 3_600_000_000, SETTINGS, ["low"]) == ()
    assert due(judged, BEGAN_US + DAY, SETTINGS, ["low"]) == (NEW_DAY, JUDGE)


def test_a_proposal_that_changes_nothing_is_counted_and_extends_the_plan() -> None:
    record = RECORD
    for hours, reasons in ((20, (NEW_DAY,)), (44, (NEW_DAY, JUDGE))):
        at, proposal = later(hours, regime="bull")
        record, was_suppressed = settled(record, proposal, reasons, at)
        assert was_suppressed
    assert record.suppressed == 2
    assert record.suppressed_reasons == {NEW_DAY: 2, JUDGE: 1}
    assert record.plan.effective_ts == BEGAN.effective_ts
    assert record.plan.valid_until == BEGAN.effective_ts + timedelta(hours=44, days=3)
    assert record.plan == plan_from(record.plan.document())
    assert record.proposal is RECORD.proposal


def test_a_proposal_that_changes_something_begins_a_plan() -> None:
    at, proposal = later(20, stance="defensive")
    record, was_suppressed = settled(replace(RECORD, suppressed=4), proposal, (NEW_DAY,), at)
    assert not was_suppressed
    assert (record.plan, record.reasons) == (proposal.plan, (NEW_DAY,))
    assert record.suppressed == 0


def test_after_a_plan_has_expired_the_same_terms_are_a_new_plan() -> None:
    at, proposal = later(73)
    record, was_suppressed = settled(RECORD, proposal, (NEW_DAY, EXPIRED), at)
    assert not was_suppressed
    assert record.plan.effective_ts > BEGAN.valid_until


def test_a_plan_is_valid_for_two_bars_at_least() -> None:
    assert SETTINGS.valid_for(["1H"]) == timedelta(days=7)
    assert SETTINGS.valid_for(["1W", "1M_CAL"]) == timedelta(days=14)
    assert SETTINGS.valid_for(["1M_CAL"]) == timedelta(days=62)
