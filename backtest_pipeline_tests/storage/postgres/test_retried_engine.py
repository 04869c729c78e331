"""A library's own connections outlast an outage as ours do, and tell an error that is none."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from backtest_pipeline.market.errors import StoreOutOfReach, StoreUnavailable
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.retried_engine import RetriedEngine, limit_statements
from backtest_pipeline.storage.postgres.retry import Retry

_NOWHERE = "postgresql+psycopg2://me@127.0.0.1:1/x"


@pytest.fixture
def retried(database: Database) -> RetriedEngine:
    engine = sa.create_engine(database.dagster_url(), pool_pre_ping=True)
    return RetriedEngine(engine, Retry(30), None)


def test_work_whose_connection_is_lost_is_done_again(retried: RetriedEngine) -> None:
    attempts: list[int] = []

    def work() -> int:
        attempts.append(1)
        with retried.engine.connect() as connection:
            if len(attempts) == 1:
                connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return connection.execute(sa.text("SELECT 7")).scalar_one()

    assert retried.retrying("work", work) == 7
    assert len(attempts) == 2


def test_an_error_of_the_statement_is_raised_at_once(retried: RetriedEngine) -> None:
    attempts: list[int] = []

    def work() -> None:
        attempts.append(1)
        with retried.engine.connect() as connection:
            connection.execute(sa.text("SELECT 1/0"))

    with pytest.raises(DBAPIError, match="division by zero"):
        retried.retrying("work", work)
    assert len(attempts) == 1


def test_connecting_waits_for_the_server_and_says_which_it_was() -> None:
    engine = sa.create_engine(_NOWHERE)
    RetriedEngine(engine, Retry(0.1), None)
    with pytest.raises(StoreOutOfReach, match=r"127\.0\.0\.1/x: .*waited 0\.1 s"):
        engine.connect()


def test_where_nothing_is_waited_for_the_first_refusal_is_told() -> None:
    engine = sa.create_engine(_NOWHERE)
    RetriedEngine(engine, Retry(0), None)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1/x: "):
        engine.connect()


def test_statements_of_a_page_are_ended(retried: RetriedEngine) -> None:
    limit_statements(retried.engine, 50)
    with retried.engine.connect() as connection, pytest.raises(DBAPIError, match="timeout"):
        connection.execute(sa.text("SELECT pg_sleep(30)"))
