"""Runs are found by what a filter says, as a plain search of all rows would find them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput, RunNotFound
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.run_search import (
    RunFilter,
    ids_beginning,
    list_runs,
    list_trades,
    note_request,
    pin_runs,
    read_run,
    unpin_runs,
)
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.stored_runs import NEWEST, fill_runs

N_RUNS = 3000


@pytest.fixture(scope="module")
def filled(template: Database) -> Iterator[tuple[Database, list[dict[str, Any]]]]:
    """Runs, and all that filters look at of each, in the order of the list."""
    for database in database_like(template, "backtest"):
        with database.begin() as connection:
            fill_runs(connection, N_RUNS)
            rows = connection.execute(
                sa.text("""
                    SELECT run_id, signal_name, strategy, symbol, tf, status, completed_at,
                           params::text AS params, array(SELECT requested_by FROM run_requests q
                                                   WHERE q.run_id = r.run_id) AS requested_by
                    FROM backtest_runs r
                """)
            )
            known = [dict(row) for row in rows.mappings()]
        known.sort(key=lambda row: (row["completed_at"], row["run_id"]), reverse=True)
        yield database, known


def _fits(row: dict[str, Any], wanted: RunFilter) -> bool:
    day = row["completed_at"].date()
    text = (wanted.text or "").lower()
    looked_at = " ".join(row[n] for n in ("signal_name", "strategy", "symbol", "params")).lower()
    return (
        (wanted.requested_by is None or wanted.requested_by in row["requested_by"])
        and wanted.strategy in (None, row["strategy"])
        and wanted.symbol in (None, row["symbol"])
        and wanted.timeframe in (None, row["tf"])
        and wanted.status in (None, row["status"])
        and (wanted.completed_from is None or day >= wanted.completed_from)
        and (wanted.completed_until is None or day < wanted.completed_until)
        and (
            text in looked_at
            or (len(text.replace("-", "")) > 3 and str(row["run_id"]).startswith(text))
        )
    )


_DAYS = st.none() | st.integers(0, 210).map(lambda n: NEWEST.date() - timedelta(days=n))


@st.composite
def _filters(draw: st.DrawFn) -> RunFilter:
    days = sorted({day for day in (draw(_DAYS), draw(_DAYS)) if day is not None})
    first, end, *_ = [*days, None, None] if draw(st.booleans()) else [None, *days, None]
    return RunFilter(
        requested_by=draw(st.sampled_from([None, None, "user0", "user6", "nobody"])),
        strategy=draw(st.sampled_from([None, None, "ema_crossover", "atr_breakout", "x"])),
        symbol=draw(st.sampled_from([None, None, "COIN0", "COIN7", "coin7"])),
        timeframe=draw(st.sampled_from([None, None, "1D", "1W"])),
        completed_from=first,
        completed_until=end,
        status=draw(st.sampled_from([None, None, "completed", "failed", "cancelled"])),
        text=draw(
            st.sampled_from(
                [
                    None,
                    None,
                    "",
                    "EMA",
                    "_9_",
                    "%",
                    "\\",
                    '"fast": 1',
                    "oin4",
                    "' OR 1=1 --",
                    "5e3a",
                ]
            )
        ),
    )


@settings(max_examples=50)
@given(_filters(), st.integers(1, 300))
def test_pages_hold_what_a_plain_search_finds_in_its_order(
    filled: tuple[Database, list[dict[str, Any]]], wanted: RunFilter, limit: int
) -> None:
    database, known = filled
    expected = [row["run_id"] for row in known if _fits(row, wanted)]
    found: list[UUID] = []
    cursor = None
    for _ in range(3):
        with database.begin() as connection:
            page = list_runs(connection, wanted, limit, cursor)
        found += [row["run_id"] for row in page.rows]
        cursor = page.next
        if cursor is None:
            break
    assert found == expected[: len(found)]
    assert (cursor is None) == (len(found) == len(expected))


def test_a_run_is_found_by_the_beginning_of_its_id(
    filled: tuple[Database, list[dict[str, Any]]],
) -> None:
    database, known = filled
    run_id = known[1234]["run_id"]
    for start in (str(run_id)[:8], str(run_id)[:12].upper(), str(run_id)):
        with database.begin() as connection:
            page = list_runs(connection, RunFilter(text=start), 10)
        assert [row["run_id"] for row in page.rows] == [run_id]


def test_runs_added_and_removed_between_pages_neither_repeat_nor_hide_others(
    database: Database,
) -> None:
    with database.begin() as connection:
        fill_runs(connection, 100)
        first = list_runs(connection, RunFilter(), 40)
        shown = [row["run_id"] for row in first.rows]
        connection.execute(
            sa.text("UPDATE backtest_runs SET completed_at = now() WHERE run_id = :run_id"),
            {"run_id": shown[20]},
        )
        pin_runs(connection, shown[:1], "ann", "")
        connection.execute(
            sa.text("DELETE FROM backtest_runs WHERE run_id = ANY(:ids)"), {"ids": shown[30:]}
        )
        rest = list_runs(connection, RunFilter(), 100, first.next)
    assert len(rest.rows) == 60
    assert not {row["run_id"] for row in rest.rows} & set(shown)


@pytest.mark.parametrize(
    ("start", "is_one"),
    [("abcd", True), ("abcdef01-2", True), ("abc", False), ("abcdefgh", False), ("abcd-e", False)],
)
def test_what_can_begin_an_id(start: str, is_one: bool) -> None:
    found = ids_beginning(start)
    assert (found is not None) == is_one
    if found:
        assert all(str(run_id).startswith(start) for run_id in found)


@pytest.mark.parametrize(
    "given",
    [
        {"status": "running"},
        {"completed_from": date(2025, 1, 2), "completed_until": date(2025, 1, 2)},
    ],
)
def test_a_filter_that_no_run_can_fit_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        RunFilter(**given)


def test_what_is_being_deleted_is_nowhere_to_be_read(database: Database) -> None:
    with database.begin() as connection:
        fill_runs(connection, 3)
        run_id = list_runs(connection, RunFilter(), 1).rows[0]["run_id"]
        connection.execute(
            sa.text("UPDATE backtest_runs SET deleting_since = now() WHERE run_id = :run_id"),
            {"run_id": run_id},
        )
        assert run_id not in {r["run_id"] for r in list_runs(connection, RunFilter(), 10).rows}
        for read in (
            lambda: read_run(connection, run_id),
            lambda: pin_runs(connection, [run_id], "ann", ""),
            lambda: unpin_runs(connection, [run_id]),
        ):
            with pytest.raises(RunNotFound, match=str(run_id)):
                read()


def test_the_view_of_runs_has_every_column_of_the_table(database: Database) -> None:
    query = "SELECT column_name FROM information_schema.columns WHERE table_name = :name"
    with database.begin() as connection:
        table, view = (
            set(connection.execute(sa.text(query), {"name": name}).scalars())
            for name in ("backtest_runs", "visible_runs")
        )
    assert table == view


def test_pins_and_requests_are_part_of_a_run(database: Database) -> None:
    with database.begin() as connection:
        fill_runs(connection, 2)
        (run_id, _) = (row["run_id"] for row in list_runs(connection, RunFilter(), 2).rows)
        for user in ("bob", "ann", "bob"):
            note_request(connection, [run_id], user)
        pin_runs(connection, [run_id], "ann", "for the paper")
        pin_runs(connection, [run_id], "bob", "for the book")
        run = read_run(connection, run_id)
        asked = [r["requested_by"] for r in run["requests"]]
        assert sorted(user for user in asked if user in ("ann", "bob")) == ["ann", "bob"]
        assert (run["pin"]["pinned_by"], run["pin"]["note"]) == ("bob", "for the book")
        unpin_runs(connection, [run_id])
        assert read_run(connection, run_id)["pin"] is None


def test_trades_come_in_pages(database: Database) -> None:
    with database.begin() as connection:
        fill_runs(connection, 1)
        (run,) = list_runs(connection, RunFilter(), 1).rows
        connection.execute(
            sa.text("""
                INSERT INTO backtest_trades SELECT (t).* FROM (
                    SELECT jsonb_populate_record(t, jsonb_build_object('trade_no', n)) AS t
                    FROM backtest_trades t, generate_series(2, 7) n) copies
            """)
        )
        first = list_trades(connection, run["run_id"], 5)
        rest = list_trades(connection, run["run_id"], 5, first.next)
    assert [t["trade_no"] for t in first.rows] == [1, 2, 3, 4, 5]
    assert [t["trade_no"] for t in rest.rows] == [6, 7]
    assert rest.next is None
