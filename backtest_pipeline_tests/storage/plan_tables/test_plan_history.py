"""The plans of a book are numbered without gaps, in the order of time, and none saw the future."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from backtest_pipeline.market.errors import RowsRefused
from backtest_pipeline.storage.plan_tables.plan_history import (
    newest_plan,
    read_plans,
    replace_newest,
)
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.sql import execute_sql, rows
from backtest_pipeline_tests.storage.plan_tables.books import (
    DAY,
    START,
    a_plan,
    add_plans,
    make_book,
)


def test_plans_are_read_as_they_were_written(database: Database) -> None:
    book = make_book(database)
    with database.begin() as connection:
        assert newest_plan(connection, book.book_id) is None
    plans = [
        a_plan(1, prompt_hash="a" * 32, response_hash="b" * 32, transcript="c" * 64, model="m"),
        a_plan(2, replan_reasons=("plan_expired", "manual"), origin="retried", origin_detail="?"),
    ]
    add_plans(database, book, *plans)
    with database.begin() as connection:
        assert read_plans(connection, book.book_id) == plans
        assert read_plans(connection, book.book_id, after=1) == plans[1:]
        assert newest_plan(connection, book.book_id) == plans[1]
        later = replace(
            plans[1],
            suppressed=2,
            suppressed_reasons={"new_day": 2, "judge_triggered": 1},
            asked_at=START + 3 * DAY,
            judged_at=START + 2 * DAY,
            valid_until=START + 9 * DAY,
            plan_id="p_later",
        )
        replace_newest(connection, book.book_id, later)
        assert newest_plan(connection, book.book_id) == later


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"sequence": 3}, "plans_book_id_follows_fkey"),
        ({"generated_at": START, "effective_ts": START}, "plans_book_id_effective_ts_key"),
        ({"generated_at": START + 2 * DAY}, "plans_check"),
        ({"valid_until": START + DAY}, "plans_check"),
        ({"replan_reasons": ()}, "replan_reasons_check"),
        ({"replan_reasons": ("a whim",)}, "replan_reasons_check"),
        ({"response_hash": "b" * 32}, "plans_check"),
        ({"asked_at": START}, "plans_check"),
        ({"transcript": "short"}, "transcript_check"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    database: Database, changes: dict[str, Any], broken: str
) -> None:
    book = make_book(database)
    add_plans(database, book, a_plan(1))
    with pytest.raises(RowsRefused, match=broken):
        add_plans(database, book, replace(a_plan(2), **changes))


def test_no_plan_can_be_taken_out_of_the_middle(database: Database) -> None:
    book = make_book(database)
    add_plans(database, book, a_plan(1), a_plan(2), a_plan(3))
    with pytest.raises(RowsRefused, match="follows"):
        execute_sql(database, "DELETE FROM plans WHERE sequence = 2")


def test_cadence_tells_when_why_and_how_long_after(database: Database) -> None:
    book = make_book(database)
    late = a_plan(3, effective_ts=START + 5 * DAY, valid_until=START + 6 * DAY)
    add_plans(database, book, a_plan(1), a_plan(2, suppressed=2), late)
    found = rows(
        database,
        "SELECT * FROM replan_cadence WHERE book = 'core' ORDER BY replan_sequence",
    )
    assert [row["since_previous"] for row in found] == [None, DAY, timedelta(days=4)]
    assert [row["suppressed"] for row in found] == [0, 2, 0]
    assert {row["run_id"] for row in found} == {None}
