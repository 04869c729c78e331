"""The queries of docs/plans-operations.md run, and its churn audit says what it promises."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.sql import rows
from backtest_pipeline_tests.storage.plan_tables.books import (
    DAY,
    START,
    a_plan,
    add_plans,
    make_book,
)

PAGE = (Path(__file__).parents[2] / "docs" / "plans-operations.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^-- [A-Z].*?;$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("query", QUERIES)
def test_its_queries_run(database: Database, query: str) -> None:
    with database.begin() as connection:
        assert connection.execute(sa.text(query)).all() == []


def test_the_churn_audit_tells_interval_reasons_suppressed_and_streak(database: Database) -> None:
    (audit,) = [query for query in QUERIES if query.startswith("-- Churn")]
    book = make_book(database)
    plans = [a_plan(1, suppressed=2), a_plan(2), a_plan(3)]
    for number, after in ((4, 9), (5, 10)):
        at = START + after * DAY
        times = {"effective_ts": at, "valid_until": at + DAY, "generated_at": at, "asked_at": at}
        plans.append(a_plan(number, replan_reasons=("new_day", "judge_triggered"), **times))
    add_plans(database, book, *plans)
    (found,) = rows(database, audit)
    assert (found["book"], found["plans"], found["longest_streak"]) == ("core", 5, 3)
    assert found["mean_interval"] == timedelta(days=2.5)
    assert found["share_suppressed"] == Decimal("0.2857")
    shares = json.loads(found["share_by_reason"])
    assert shares == {
        "initial_plan": pytest.approx(1 / 7, abs=1e-4),
        "new_day": pytest.approx(4 / 7, abs=1e-4),
        "judge_triggered": pytest.approx(2 / 7, abs=1e-4),
    }


def test_it_has_queries() -> None:
    assert len(QUERIES) == 5
