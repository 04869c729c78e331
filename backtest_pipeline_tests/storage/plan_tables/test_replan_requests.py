"""Each trigger asks once, waits until it is answered, and is asked again where that failed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.plan_tables.replan_requests import (
    ReplanTrigger,
    WaitingReplan,
    answer_requests,
    ask_again,
    list_requests,
    note_error,
    request_replans,
    waiting_replans,
    waiting_requests,
)
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.sql import column, execute_sql, scalar
from backtest_pipeline_tests.storage.plan_tables.books import a_plan, add_plans, make_book


def ask(database: Database, book: PlanBook, *triggers: tuple[str, str]) -> int:
    """Records these reasons and keys; the number of new ones."""
    wanted = [ReplanTrigger(book.book_id, reason, key, "seen") for reason, key in triggers]
    with database.begin() as connection:
        return len(request_replans(connection, wanted, "sensor"))


def waiting(database: Database) -> list[WaitingReplan]:
    with database.begin() as connection:
        return waiting_replans(connection)


def test_a_trigger_asks_once_whoever_sees_it_and_however_often(database: Database) -> None:
    book = make_book(database)
    with ThreadPoolExecutor(4) as pool:
        seen = pool.map(lambda _: ask(database, book, ("new_day", "2024-03-02")), range(12))
    assert sum(seen) == 1
    assert ask(database, book, ("plan_expired", "2024-03-02"), ("new_day", "2024-03-02")) == 1
    (replan,) = waiting(database)
    assert replan.reasons == ("new_day", "plan_expired")
    assert (replan.book, replan.attempt, replan.sequence) == ("core", 1, 1)
    assert replan.is_due


def test_one_replan_answers_all_that_waited_when_it_began(database: Database) -> None:
    book = make_book(database)
    ask(database, book, ("initial_plan", "1"), ("manual", "a"))
    with database.begin() as connection:
        begun = waiting_requests(connection, book.book_id)
    assert list(begun.values()) == ["initial_plan", "manual"]
    ask(database, book, ("manual", "b"))
    add_plans(database, book, a_plan(1))
    with database.begin() as connection:
        answer_requests(
            connection,
            list(begun),
            status="planned",
            sequence=1,
            dagster_run_id="run",
            origin=("retried", "it was cut off", None),
        )
        newest, *others = list_requests(connection, book.book_id, 10)
    assert (newest["trigger_key"], newest["status"]) == ("b", "waiting")
    names = ("status", "sequence", "dagster_run_id", "origin", "origin_detail")
    assert {tuple(row[name] for name in names) for row in others} == {
        ("planned", 1, "run", "retried", "it was cut off")
    }
    (replan,) = waiting(database)
    assert (replan.reasons, replan.sequence) == (("manual",), 2)
    assert ask(database, book, ("manual", "a"), ("initial_plan", "1")) == 0


def test_a_failed_replan_is_asked_again_later_and_later_once_for_each_attempt(
    database: Database,
) -> None:
    book = make_book(database)
    ask(database, book, ("initial_plan", "1"), ("manual", "a"))
    waits = []
    for attempt in range(1, 9):
        (replan,) = waiting(database)
        assert replan.attempt == attempt

        def count_it(replan: WaitingReplan = replan) -> bool:
            with database.begin() as connection:
                return ask_again(connection, replan, "it was killed")

        with ThreadPoolExecutor(3) as pool:
            counted = list(pool.map(lambda _: count_it(), range(3)))
        assert sorted(counted) == [False, False, True]
        assert not waiting(database)[0].is_due
        waits += column(database, "SELECT DISTINCT retry_at - now() FROM replan_requests")
        execute_sql(database, "UPDATE replan_requests SET retry_at = now()")
    minutes = [round(wait / timedelta(minutes=1)) for wait in waits]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60]
    error = "SELECT DISTINCT error FROM replan_requests"
    assert scalar(database, error) == "it was killed"
    with database.begin() as connection:
        note_error(connection, book.book_id, "no bars")
        assert ask_again(connection, waiting(database)[0], "it was killed")
    assert scalar(database, error) == "attempt 9: no bars"
    with database.begin() as connection:
        assert ask_again(connection, waiting(database)[0], "it was killed")
    assert scalar(database, error) == "it was killed"


def test_what_is_asked_meanwhile_does_not_wait_for_the_failed_one(database: Database) -> None:
    book = make_book(database)
    ask(database, book, ("initial_plan", "1"))
    with database.begin() as connection:
        ask_again(connection, waiting(database)[0], "it failed")
    assert not waiting(database)[0].is_due
    ask(database, book, ("manual", "now"))
    (replan,) = waiting(database)
    assert replan.is_due
    assert replan.reasons == ("initial_plan", "manual")
