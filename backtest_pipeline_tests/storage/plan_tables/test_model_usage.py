"""What models used is added up by day."""

from __future__ import annotations

from datetime import date

from backtest_pipeline.storage.plan_tables.model_usage import (
    DailyUse,
    add_use,
    read_use,
    settle_use,
)
from backtest_pipeline.storage.postgres.database import Database


def test_use_is_added_up_by_day_over_all_models(database: Database) -> None:
    day = date(2026, 1, 1)
    with database.begin() as connection:
        assert read_use(connection, day) == DailyUse()
        add_use(connection, day, "one", DailyUse(1, 900, 0.25))
        add_use(connection, day, "one", DailyUse(2, 100, 0.25))
        add_use(connection, day, "other", DailyUse(1, 50, 0.5))
        add_use(connection, date(2026, 1, 2), "one", DailyUse(7, 7, 7.0))
        assert read_use(connection, day) == DailyUse(4, 1050, 1.0)


def test_what_was_used_takes_the_place_of_what_was_reserved(database: Database) -> None:
    day, most = date(2026, 1, 3), DailyUse(1, 1000, 0.5)
    with database.begin() as connection:
        add_use(connection, day, "one", most)
        add_use(connection, day, "one", most)
        settle_use(connection, day, "one", reserved=most, used=DailyUse(1, 300, 0.125))
        assert read_use(connection, day) == DailyUse(2, 1300, 0.625)
        settle_use(connection, day, "one", reserved=most, used=DailyUse())
        assert read_use(connection, day) == DailyUse(1, 300, 0.125)
