from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.timeframes import SHIPPED, timeframe
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.migrations import migrate
from backtest_pipeline.storage.tables.timeframes import (
    TimeframeRow,
    add_timeframe,
    declare_timeframes,
    refreshed_timeframes,
    remove_timeframe,
    timeframe_row,
    timeframe_rows,
)
from backtest_pipeline_tests.sql import execute_sql


def insert(database: Database, tf: str, **changed: Any) -> None:
    """A row as the owner of the database may write it."""
    row = {**timeframe_row(timeframe("1D")), "tf": tf, **changed}
    names = ", ".join(row)
    with database.begin() as connection:
        connection.execute(
            sa.text(
                f"INSERT INTO dim_timeframe ({names})"
                f" VALUES ({', '.join(f':{name}' for name in row)})"
            ),
            row,
        )


def rows(database: Database) -> Mapping[str, TimeframeRow]:
    with database.begin() as connection:
        return {row.name: row for row in timeframe_rows(connection)}


def refreshed(database: Database, *named: str) -> tuple[str, ...]:
    with database.begin() as connection:
        return refreshed_timeframes(connection, named)


def test_every_store_has_the_shipped_rows_by_length(database: Database) -> None:
    with database.begin() as connection:
        add_timeframe(connection, "45D")
        connection.execute(sa.text("DELETE FROM dim_timeframe WHERE tf = '1D'"))
        connection.execute(sa.text("UPDATE dim_timeframe SET tf_qty = 5, sort_order = 7"))
    migrate(database)
    found = rows(database)
    assert list(found) == sorted(SHIPPED, key=lambda name: timeframe(name).sort_key)
    assert not any(row.contradiction for row in found.values())
    assert all(row.is_shipped and row.n_assets == 0 for row in found.values())
    assert [row.name for row in found.values() if row.is_refreshed] == ["45D"]  # as it was added


def test_no_two_shipped_timeframes_are_told_alike() -> None:
    labels = [timeframe_row(timeframe(name))["label"] for name in SHIPPED]
    assert len(set(labels)) == len(labels)
    week, of_year = (timeframe_row(timeframe(f"2W_CAL{x}_ISO"))["label"] for x in ("", "_ANCHOR"))
    assert week == "2 calendar weeks (ISO weeks)"
    assert of_year == "2 calendar weeks of the year (ISO weeks)"


@pytest.mark.parametrize(
    ("tf", "fields"),
    [
        ("3M_CAL", ("M", 3, "calendar", "EOQ", None, 90.0, 92.0, False)),
        ("2Q", ("Q", 2, "calendar", "EOQ", None, 181.0, 184.0, False)),
        ("2Y_CAL", ("Y", 2, "calendar", "EOY", None, 730.0, 731.0, False)),
        ("9M_CAL_ANCHOR", ("M", 9, "calendar", "EOM", None, 92.0, 274.0, True)),
        ("10W_CAL_ANCHOR_ISO", ("W", 10, "calendar", "ISO-WEEK", "ISO", 14.0, 70.0, True)),
        ("2W_CAL_US", ("W", 2, "calendar", "WEEK_END", "US", 14.0, 14.0, False)),
        ("21D", ("D", 21, "tf_day", None, None, 21.0, 21.0, False)),
    ],
)
def test_a_row_follows_from_the_name(database: Database, tf: str, fields: tuple[Any, ...]) -> None:
    with database.begin() as connection:
        declare_timeframes(connection, [tf])
        row = connection.execute(
            sa.text(
                "SELECT base_unit, tf_qty, alignment_type, calendar_anchor, calendar_scheme,"
                " tf_days_min, tf_days_max, allow_partial_end FROM dim_timeframe WHERE tf = :tf"
            ),
            {"tf": tf},
        ).one()
    assert tuple(row) == fields


def test_what_is_stored_declares_a_timeframe_and_adding_it_has_it_refreshed(
    database: Database,
) -> None:
    with database.begin() as connection:
        declare_timeframes(connection, ["7D", "1D", "7D"])
    assert not rows(database)["7D"].is_refreshed
    assert refreshed(database, "1D") == ("1D",)
    with database.begin() as connection:
        add_timeframe(connection, "7D")
        add_timeframe(connection, "1W")
    assert refreshed(database, "4H", "1D", "1M_CAL") == ("4H", "1D", "1W", "7D", "1M_CAL")
    with database.begin() as connection:
        remove_timeframe(connection, "7D")
        remove_timeframe(connection, "1W")
    assert refreshed(database, "1D") == ("1D",)
    assert "7D" not in rows(database)
    assert rows(database)["1W"].is_shipped  # stays, for every store has it
    with (
        database.begin() as connection,
        pytest.raises(UnknownName, match="timeframe of this store '7D'"),
    ):
        remove_timeframe(connection, "7D")


def test_a_row_of_the_owner_is_refreshed(database: Database) -> None:
    insert(database, "14D", tf_qty=14, tf_days_nominal=14, sort_order=None)
    row = rows(database)["14D"]
    assert (row.is_shipped, row.is_refreshed, row.contradiction) == (False, True, "")
    assert refreshed(database) == ("14D",)


@pytest.mark.parametrize(
    ("tf", "changed", "expected"),
    [
        ("14D", {"tf_qty": 7}, r"says of 14D that tf_qty = 7, not 14, as its name does"),
        ("1Q", {"base_unit": "M"}, "base_unit = M, not Q, and alignment_type = tf_day"),
        ("5W", {"base_unit": "W", "tf_qty": 5, "calendar_scheme": "ISO"}, "calendar_scheme = ISO"),
        ("9D", {"tf_qty": 9, "allow_partial_end": True}, "allow_partial_end = True, not False"),
        ("9D", {"tf_qty": 9, "is_intraday": True}, "is_intraday = True, not False"),
        ("9D", {"tf_qty": 9, "roll_policy": "calendar_anchor"}, "roll_policy = calendar_anchor"),
    ],
)
def test_a_row_that_contradicts_its_name_is_left_out_and_refused_with_the_field(
    database: Database, tf: str, changed: dict[str, Any], expected: str
) -> None:
    insert(database, tf, **changed)
    assert refreshed(database, "1D") == ("1D",)
    with database.begin() as connection, pytest.raises(InvalidInput, match=expected):
        declare_timeframes(connection, [tf])


def test_a_row_of_no_timeframe_is_left_out_and_named(database: Database) -> None:
    insert(database, "FORTNIGHT")
    assert "'FORTNIGHT', which is no name" in rows(database)["FORTNIGHT"].contradiction
    assert refreshed(database, "1D") == ("1D",)
    execute_sql(database, "DELETE FROM dim_timeframe WHERE tf = 'FORTNIGHT'")
