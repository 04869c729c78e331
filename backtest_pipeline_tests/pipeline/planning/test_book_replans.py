"""A replan answers all that waits, once, and plans of the past saw nothing later."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from backtest_pipeline.market.errors import (
    AlreadyRunning,
    InvalidInput,
    NotEnoughBars,
    UnknownName,
)
from backtest_pipeline.pipeline.planning import book_replans
from backtest_pipeline.pipeline.planning.book_replans import Replan, replan
from backtest_pipeline.pipeline.planning.books import (
    add_book,
    find_book,
    remove_book,
    request_replan,
    show_book,
    stored_plans,
)
from backtest_pipeline.pipeline.planning.due_replans import note_triggers, stale_runs
from backtest_pipeline.pipeline.planning.planned_runs import follow_book
from backtest_pipeline.pipeline.planning.replan_now import replan_now
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.postgres.session_lock import SessionLock
from backtest_pipeline_tests.pipeline.planning.stores import (
    SYMBOLS,
    added,
    refreshed,
    without_last,
)
from backtest_pipeline_tests.sql import column, count, execute_sql


def planned(store: Workspace, book: PlanBook) -> Replan:
    found = replan(store, book)
    assert found is not None
    return found


def answered(store: Workspace, status: str = "planned") -> list[str]:
    query = "SELECT reason FROM replan_requests WHERE status = :status ORDER BY request_id"
    return column(store, query, status=status)


def waiting_error(store: Workspace) -> str:
    (error,) = column(store, "SELECT error FROM replan_requests WHERE status = 'waiting'")
    return error


def test_the_first_replan_plans_for_the_past_and_answers_once(store: Workspace) -> None:
    book = added(store)
    first = planned(store, book)
    assert (first.reasons, first.suppressed) == (("initial_plan",), False)
    assert first.plans[0].replan_reasons == ("initial_plan",)
    assert [plan.sequence for plan in first.plans] == list(range(1, len(first.plans) + 1))
    assert stored_plans(store, book) == list(first.plans)
    assert all(plan.generated_at <= plan.effective_ts for plan in first.plans)
    assert answered(store) == ["initial_plan"]
    assert replan(store, book) is None
    assert note_triggers(store.database) == 0


def test_a_start_keeps_earlier_days_unplanned(store: Workspace) -> None:
    book = added(store, start=date(2025, 11, 1))
    first = planned(store, book).plans[0]
    assert first.effective_ts.date() == date(2025, 11, 1)
    last = added(store, "last", start=date(2025, 12, 26))
    (only,) = planned(store, last).plans
    assert only.effective_ts == datetime(2025, 12, 26, 23, 59, 59, 999_000, UTC)


def test_a_start_after_the_newest_bar_waits_for_its_bars_and_says_so(store: Workspace) -> None:
    book = added(store, start=date(2026, 1, 20))
    with pytest.raises(NotEnoughBars, match=r"core starts at 2026-01-20, .* at 2025-12-26T23:59"):
        replan(store, book)
    assert count(store, "plans") == 0
    assert "starts at 2026-01-20" in waiting_error(store)


def test_a_start_in_the_future_is_refused(store: Workspace) -> None:
    # Of a day that is not over before this test is.
    tomorrow = (datetime.now(UTC) + timedelta(hours=1)).date() + timedelta(days=1)
    with pytest.raises(InvalidInput, match=f"cannot start at {tomorrow}, which is in the future"):
        added(store, start=tomorrow)
    assert count(store, "plan_books") == 0
    added(store, start=datetime.now(UTC).date())


def test_a_history_that_lost_its_last_bars_is_planned_by_what_is_known(store: Workspace) -> None:
    book = added(store, replans={"judge": None})
    before = planned(store, book).plans[-1]
    refreshed(store, without_last(6))
    (kept,) = planned(store, book).plans
    assert (kept.sequence, kept.suppressed) == (before.sequence, before.suppressed + 1)
    assert kept.valid_until >= before.valid_until
    assert kept.suppressed_reasons["data_restated"] == 1
    refreshed(store, without_last(95))
    (plan,) = planned(store, book).plans
    assert plan.replan_reasons == ("data_restated",)
    assert plan.generated_at == before.asked_at - timedelta(days=90)
    assert plan.effective_ts == before.asked_at == plan.asked_at
    assert follow_book(store, book, "1D", SimulationConfig()).is_new
    assert stale_runs(store.database) == []
    refreshed(store, without_last(4))
    (newer,) = planned(store, book).plans
    assert newer.replan_reasons == ("new_day",)
    assert newer.generated_at == newer.effective_ts == before.asked_at + timedelta(days=1)


@pytest.mark.parametrize("timeframes", [("1D", "7D"), ("4H", "1D")])
def test_a_timeframe_without_bars_is_named(store: Workspace, timeframes: tuple[str, ...]) -> None:
    added(store, start=date(2025, 11, 1))
    execute_sql(store, "UPDATE plan_books SET timeframes = :names", names=list(timeframes))
    book = find_book(store, "core")
    (empty,) = {*timeframes} - {"1D"}
    said = f"plan book core: no bars of S-ALPHA are stored at {empty}; refresh them first"
    with pytest.raises(NotEnoughBars, match=said):
        replan(store, book)
    assert said in waiting_error(store)
    assert count(store, "plans") == 0


def test_a_book_is_at_timeframes_that_are_refreshed(store: Workspace) -> None:
    with pytest.raises(InvalidInput, match="timeframe 11D is not one of this project"):
        add_book(store, "core", SYMBOLS[:1], ["1D", "11D"], user="ann")


def test_a_replan_on_request_has_the_reasons_that_nobody_noted_yet(store: Workspace) -> None:
    added(store, "core", *SYMBOLS, replans={"judge": None})
    replan_now(store, "core", "ann")
    refreshed(store, without_last(10), SYMBOLS[:1])
    execute_sql(store, "UPDATE plans SET data = data - 'S-BETA|1D'")
    told = replan_now(store, "core", "ann")
    assert set(told["reasons"]) == {"data_restated", "new_asset", "manual"}
    assert note_triggers(store.database) == 0


def test_a_replan_on_request_that_fails_leaves_nothing_that_waits(store: Workspace) -> None:
    book = added(store)
    planned(store, book)
    lock = SessionLock(store.database, "planner of book core")
    with pytest.raises(AlreadyRunning, match="wait until it has planned"):
        replan_now(store, "core", "ann")
    lock.close()
    execute_sql(store, "UPDATE plan_books SET strategist = 'gone'")
    with pytest.raises(UnknownName, match="gone"):
        replan_now(store, "core", "ann")
    assert answered(store, "waiting") == []


def test_three_days_without_anybody_looking_are_one_replan_with_its_reasons(
    store: Workspace,
) -> None:
    book = added(store, replans={"valid_days": 2.0})
    before = planned(store, book).plans[-1]
    refreshed(store, without_last(2))
    assert note_triggers(store.database) == 2
    assert note_triggers(store.database) == 0
    found = planned(store, book)
    (plan,) = found.plans
    assert set(found.reasons) == {"new_day", "plan_expired"}
    assert set(plan.replan_reasons) == {"new_day", "plan_expired"}
    assert (plan.sequence, found.suppressed) == (before.sequence + 1, False)
    assert plan.effective_ts - before.asked_at == timedelta(days=3)
    assert note_triggers(store.database) == 0


def test_a_replan_that_changes_nothing_is_counted_and_extends_the_plan(store: Workspace) -> None:
    book = added(store)
    before = planned(store, book).plans[-1]
    request_replan(store, "core", "ann")
    found = planned(store, book)
    (kept,) = found.plans
    assert found.suppressed
    assert (kept.sequence, kept.suppressed) == (before.sequence, before.suppressed + 1)
    assert kept.suppressed_reasons["manual"] == 1
    assert answered(store, "suppressed") == ["manual"]
    assert stored_plans(store, book)[-1] == kept
    assert kept.generated_at_actual == before.generated_at_actual


def test_restated_history_and_a_new_asset_ask_for_a_replan(store: Workspace) -> None:
    book = added(store, "core", *SYMBOLS)
    planned(store, book)
    refreshed(store, without_last(5, factor=1.01), SYMBOLS[:1])
    assert note_triggers(store.database) == 1
    (request, *_) = show_book(store, "core").requests
    assert request["detail"].startswith("history of S-ALPHA|1D has changed since plan")
    assert planned(store, book).reasons == ("data_restated",)
    assert note_triggers(store.database) == 0
    refreshed(store, without_last(5), SYMBOLS[:1])
    execute_sql(store, "UPDATE plans SET data = data - 'S-BETA|1D'")
    assert note_triggers(store.database) == 2
    assert planned(store, book).reasons == ("data_restated", "new_asset")
    assert note_triggers(store.database) == 0


def test_a_second_plan_at_one_bar_takes_effect_after_it(store: Workspace) -> None:
    planned(store, added(store))
    plans = []
    for stop in (5.0, 6.0):
        execute_sql(
            store, "UPDATE plan_books SET config = jsonb_build_object('stop_loss_pct', :n)", n=stop
        )
        assert request_replan(store, "core", "ann", key=f"stop {stop}")
        assert not request_replan(store, "core", "ben", key=f"stop {stop}")
        plans += planned(store, find_book(store, "core")).plans
    first, second = plans
    assert second.effective_ts - first.effective_ts == timedelta(milliseconds=1)
    assert second.generated_at == first.generated_at == first.effective_ts
    assert {one.get("stop_loss_pct") for one in second.plan["triggers"]} <= {None, 6.0}


def test_nothing_is_planned_without_bars_and_the_request_waits(workspace: Workspace) -> None:
    refreshed(workspace, without_last(5), SYMBOLS[:1])
    execute_sql(workspace, "INSERT INTO dim_assets (id, symbol) VALUES (77, 'LATER')")
    book = added(workspace, "core", "LATER")
    with pytest.raises(NotEnoughBars, match="no bars of LATER are stored at 1D"):
        replan(workspace, book)
    assert answered(workspace, "waiting") == ["initial_plan"]


def test_a_book_is_planned_by_one_process_at_a_time(store: Workspace) -> None:
    book = added(store)
    lock = SessionLock(store.database, "planner of book core")
    with pytest.raises(AlreadyRunning, match="planner of book core"):
        replan(store, book)
    lock.close()
    assert planned(store, book)


def test_a_book_that_is_removed_meanwhile_gets_no_plan(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = added(store)
    load = book_replans.load_book

    def removing(workspace: Workspace, found: PlanBook) -> object:
        remove_book(workspace, found.name)
        return load(workspace, found)

    monkeypatch.setattr(book_replans, "load_book", removing)
    assert replan(store, book) is None
    assert count(store, "plans") == 0
