"""No command tells the password of the database, however it fails."""

from __future__ import annotations

import traceback

import pytest
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.sql import execute_sql

CANARY = "SECRET-CANARY"


@pytest.fixture
def guarded(cli: CommandLine) -> CommandLine:
    """The command line with a password in its DSN, which the embedded server does not ask for."""
    dsn = make_conninfo(cli.database.conninfo, password=CANARY)
    cli.monkeypatch.setenv("BACKTEST_POSTGRES_DSN", dsn)
    cli.monkeypatch.setenv("BACKTEST_LOG_FORMAT", "json")
    return cli


@pytest.mark.parametrize(
    "words",
    [{"host": "127.0.0.1", "port": "1"}, {"user": "nobody_here"}, {"dbname": "nowhere"}],
)
def test_a_database_that_cannot_be_reached(guarded: CommandLine, words: dict[str, str]) -> None:
    dsn = make_conninfo(guarded.database.conninfo, password=CANARY, **words)
    guarded.monkeypatch.setenv("BACKTEST_POSTGRES_DSN", dsn)
    for command in (["doctor"], ["migrate"], ["leaderboard"]):
        answer = guarded(*command)
        assert answer.code == 1
        assert CANARY not in answer.out + answer.err
    with pytest.raises(BacktestError) as caught:
        connect_database(dsn)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_refresh_that_fails_in_dagster(guarded: CommandLine) -> None:
    """A table is away: the statement fails in a run, which Dagster records with its causes."""
    execute_sql(guarded, "ALTER TABLE signals RENAME TO hidden")
    answer = guarded("refresh", "--assets", "S-ALPHA", "--timeframes", "1W")
    assert answer.code == 1
    assert CANARY not in answer.out + answer.err
    with guarded.database.begin() as connection:
        tables = connection.execute(
            sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'dagster'")
        )
        told = {
            table: connection.execute(sa.text(f"SELECT t::text FROM dagster.{table} t")).scalars()
            for table in tables.scalars().all()
        }
        rows = [row for found in told.values() for row in found]
    assert any("SchemaNotMigrated" in row for row in rows)
    assert not [row for row in rows if CANARY in row]
