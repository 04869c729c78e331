"""Books and plans as rows, without a strategist."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from backtest_pipeline.storage.plan_tables.plan_books import PlanBook, insert_book
from backtest_pipeline.storage.plan_tables.plan_history import LoggedPlan, append_plans
from backtest_pipeline.storage.postgres.database import Database

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def make_book(database: Database, name: str = "core", **changes: Any) -> PlanBook:
    """A book of one symbol, which nobody has planned for."""
    row = {
        "symbols": ["S-ALPHA"],
        "timeframes": ["1D"],
        "strategist": "rules",
        "config": {},
        "replans": {},
        "start": None,
        "created_by": "ann",
    }
    with database.begin() as connection:
        return insert_book(connection, name=name, **{**row, **changes})


def a_plan(sequence: int, **changes: Any) -> LoggedPlan:
    """The plan of a day, the first of them of START."""
    effective = START + (sequence - 1) * DAY
    plan = LoggedPlan(
        sequence=sequence,
        plan_id=f"p_{sequence}",
        plan={"stance": "wait"},
        generated_at=effective,
        generated_at_actual=datetime(2026, 1, 1, tzinfo=UTC),
        effective_ts=effective,
        valid_until=effective + DAY,
        replan_reasons=("initial_plan",) if sequence == 1 else ("new_day",),
        asked_at=effective,
        origin="valid",
        data={"S-ALPHA|1D": "g1"},
    )
    return replace(plan, **changes)


def add_plans(database: Database, book: PlanBook, *plans: LoggedPlan) -> None:
    """Adds plans to the history of a book."""
    with database.begin() as connection:
        append_plans(connection, book.book_id, plans)
