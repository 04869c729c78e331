"""Gates that stay as they were registered, and boards that appear whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, StoreError, UnknownName
from backtest_pipeline.research.ranking.leaderboard import gates_of
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.leaderboard import (
    BOARDS_KEPT,
    board_rows,
    gate_set,
    newest_board,
    publish_board,
    register_gate_set,
)
from backtest_pipeline_tests.sql import execute_as
from backtest_pipeline_tests.sql import rows as rows_of

STRICT = json.dumps([{"name": "trades", "metric": "trade_count", "at_least": 100}])


def test_the_default_gates_are_registered_with_the_schema_and_are_gates(database: Database) -> None:
    with database.begin() as connection:
        found = gate_set(connection, "default")
    assert [gate.name for gate in gates_of(found.gates)] == [
        *("trades", "days", "drawdown", "costs", "significance")
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE gate_sets SET registered_at = now() - interval '1 year'",
        "UPDATE gate_sets SET gates = '[]'",
        "DELETE FROM gate_sets",
        "TRUNCATE gate_sets CASCADE",
    ],
)
def test_a_registered_gate_set_is_never_changed(database: Database, statement: str) -> None:
    with pytest.raises(StoreError, match="never changed"), database.begin() as connection:
        connection.execute(sa.text(statement))


def test_the_moment_of_registration_is_the_store_s_own(database: Database) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    with database.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO gate_sets (name, gates, registered_at) VALUES ('old', :g, :at)"),
            {"g": STRICT, "at": datetime(2001, 1, 1, tzinfo=UTC)},
        )
        assert gate_set(connection, "old").registered_at > before


def test_a_name_means_one_set_of_gates_for_ever(database: Database) -> None:
    with database.begin() as connection:
        first = register_gate_set(connection, "strict", STRICT)
        assert register_gate_set(connection, "strict", STRICT) == first
        for name, gates in (("default", STRICT), ("strict", "[]"), ("other", STRICT)):
            with pytest.raises(InvalidInput, match="choose another name"):
                register_gate_set(connection, name, gates)
        with pytest.raises(UnknownName, match="did you mean strict"):
            gate_set(connection, "strikt")


def board(database: Database, number: int) -> tuple[pa.Table, pa.Table]:
    with database.begin() as connection:
        gates = gate_set(connection, "default").gate_set_id
    about = {
        "board_id": f"board {number}",
        "gate_set_id": gates,
        "registered_after_results": False,
        "n_ranked": 1,
        "n_passed": 0,
        "code_version": "1",
    }
    row = {
        "board_id": about["board_id"],
        "run_id": "00000000-0000-0000-0000-000000000001",
        "rank": 1,
        "unranked": pa.scalar(None, pa.string()),
        **dict.fromkeys(("signal_name", "family", "symbol", "tf"), "x"),
        "n_days": 400,
        **dict.fromkeys(("scores", "gates"), "{}"),
        "passed": False,
        "undefined": ["sharpe"],
    }
    return pa.Table.from_pylist([about]), pa.Table.from_pylist([row])


def publish(database: Database, about: pa.Table, rows: pa.Table) -> None:
    with database.arrow() as connection, connection.cursor() as cursor:
        publish_board(cursor, about, rows)


def test_the_newest_boards_are_kept_and_older_ones_go_with_their_rows(database: Database) -> None:
    for number in range(BOARDS_KEPT + 3):
        publish(database, *board(database, number))
    publish(database, *board(database, BOARDS_KEPT + 2))  # once more: in its own place
    with database.begin() as connection:
        newest = newest_board(connection)
        assert newest is not None
        assert newest["board_id"] == f"board {BOARDS_KEPT + 2}"
        (row,) = board_rows(connection, newest["board_id"])
        assert row["undefined"] == ["sharpe"]
        for table in ("leaderboards", "leaderboard"):
            assert connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == BOARDS_KEPT
        assert board_rows(connection, "board 0") == []


def test_a_board_that_breaks_a_rule_leaves_the_one_before_it(database: Database) -> None:
    publish(database, *board(database, 1))
    about, rows = board(database, 2)
    twice = pa.concat_tables([rows, rows])
    with pytest.raises(StoreError):
        publish(database, about, twice)
    with database.begin() as connection:
        newest = newest_board(connection)
    assert newest is not None
    assert newest["board_id"] == "board 1"


def test_a_board_says_what_the_database_knows_of_its_gates(database: Database) -> None:
    about, rows = board(database, 1)
    early = about.append_column("published_at", [pa.array([datetime(2001, 1, 1, tzinfo=UTC)])])
    publish(database, early, rows)
    with database.begin() as connection:
        newest = newest_board(connection)
    assert newest is not None
    assert newest["published_at"] > datetime.now(UTC) - timedelta(minutes=1)
    assert newest["registered_after_results"]  # its run is in no ledger: nothing says it is early


@pytest.mark.parametrize("role", ["backtest_writer", "backtest_owner"])
@pytest.mark.parametrize(
    "change",
    [
        "registered_after_results = FALSE",
        "published_at = now() - interval '1 year'",
        "first_tried = now()",
        "board_id = 'another'",
    ],
)
def test_no_role_changes_the_stamps_of_a_board(database: Database, role: str, change: str) -> None:
    publish(database, *board(database, 1))
    with pytest.raises(StoreError, match="UPDATE of leaderboards"):
        execute_as(database, role, f"UPDATE leaderboards SET {change}")


def test_no_role_adds_triggers_to_what_is_stamped(database: Database) -> None:
    granted = """
        SELECT r.rolname, c.relname FROM pg_class c, pg_roles r
        WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
          AND r.rolname LIKE 'backtest\\_%' AND has_table_privilege(r.oid, c.oid, 'TRIGGER')"""
    assert rows_of(database, granted) == []


def test_a_registration_cannot_be_kept_open_until_results_are_known(database: Database) -> None:
    with database.begin() as connection:
        register_gate_set(connection, "strict", STRICT)
        locks = "SELECT mode FROM pg_locks WHERE relation = 'trials'::regclass AND granted"
        assert "ShareLock" in connection.execute(sa.text(locks)).scalars().all()
