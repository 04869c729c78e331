"""Books are told apart by their names, and found by what they trade."""

from __future__ import annotations

from datetime import date

import pytest

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.storage.plan_tables.plan_books import delete_book, list_books, read_book
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.sql import count, execute_as
from backtest_pipeline_tests.storage.plan_tables.books import a_plan, add_plans, make_book


def test_a_book_is_what_it_was_added_as(database: Database) -> None:
    book = make_book(
        database,
        symbols=["S-BETA", "S-ALPHA", "S-BETA"],
        timeframes=["4H", "1D"],
        config={"valid_days": 2},
        start=date(2024, 1, 1),
    )
    assert (book.symbols, book.timeframes) == (("S-ALPHA", "S-BETA"), ("4H", "1D"))
    assert (book.config, book.start, book.created_by) == (
        {"valid_days": 2},
        date(2024, 1, 1),
        "ann",
    )
    with database.begin() as connection:
        assert read_book(connection, "core") == book
        with pytest.raises(UnknownName, match=r"'cor'.*core"):
            read_book(connection, "cor")
    with pytest.raises(InvalidInput, match="a plan book core already"):
        make_book(database)


@pytest.mark.parametrize("name", ["", "Core", "a b", "-a", "a" * 64, "a|b"])
def test_a_name_has_to_fit_into_addresses_and_tags(database: Database, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a plan book"):
        make_book(database, name)


def test_books_are_listed_by_what_they_trade(database: Database) -> None:
    for name, symbols, timeframes in (
        ("pair", ["S-ALPHA", "S-BETA"], ["1D"]),
        ("alpha", ["S-ALPHA"], ["1D", "4H"]),
        ("beta", ["S-BETA"], ["4H"]),
    ):
        make_book(database, name, symbols=symbols, timeframes=timeframes)

    def names(**of: list[str]) -> list[str]:
        with database.begin() as connection:
            return [book.name for book in list_books(connection, **of)]

    assert names() == ["alpha", "beta", "pair"]
    assert names(timeframes=["1D"]) == ["alpha", "pair"]
    assert names(timeframes=["4H"], symbols=["S-ALPHA", "S-BETA"]) == ["alpha", "beta"]
    assert names(symbols=["S-GAMMA"]) == []


def test_a_deleted_book_takes_its_plans_along(database: Database) -> None:
    book, other = make_book(database), make_book(database, "other")
    add_plans(database, book, a_plan(1), a_plan(2))
    add_plans(database, other, a_plan(1))
    with database.begin() as connection:
        delete_book(connection, "core")
    assert (count(database, "plan_books"), count(database, "plans")) == (1, 1)


def test_roles_reach_what_is_theirs(database: Database) -> None:
    make_book(database)
    for table in ("plan_books", "plans", "replan_requests", "model_usage", "replan_cadence"):
        execute_as(database, "backtest_reader", f"SELECT * FROM {table}")
    execute_as(database, "backtest_writer", "DELETE FROM plan_books")
    assert count(database, "plan_books") == 0
