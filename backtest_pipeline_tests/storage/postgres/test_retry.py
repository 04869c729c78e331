"""A database that goes away for a moment is waited for, and one that never answers is given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import StoreError, StoreOutOfReach, StoreUnavailable
from backtest_pipeline.storage.postgres import database as module
from backtest_pipeline.storage.postgres import retry
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.postgres.retry import Retry
from backtest_pipeline_tests.chaos.proxy import Proxy, proxy_to
from backtest_pipeline_tests.sql import count


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    with proxy_to(database.conninfo) as proxy:
        yield proxy


@pytest.fixture
def through(database: Database, proxy: Proxy) -> Iterator[Database]:
    """The database behind the proxy."""
    opened = connect_database(proxy.dsn(database.conninfo), retry=Retry(5))
    yield opened
    opened.close()


def add_asset(database: Database) -> None:
    with database.begin() as connection:
        statement = "INSERT INTO dim_assets (symbol) VALUES ('A') ON CONFLICT DO NOTHING"
        connection.execute(sa.text(statement))


def add_asset_by_arrow(database: Database) -> None:
    with database.arrow() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO dim_assets (symbol) VALUES ('A') ON CONFLICT DO NOTHING")


def assets(database: Database) -> int:
    return count(database, "dim_assets")


@pytest.mark.parametrize("add", [add_asset, add_asset_by_arrow])
@pytest.mark.parametrize("is_done", [True, False])
def test_work_is_done_once_whether_or_not_the_commit_that_was_cut_off_was_done(
    database: Database, proxy: Proxy, through: Database, add, is_done: bool
) -> None:
    proxy.commit_is_done, proxy.cut_at_commit = is_done, proxy.commits + 1
    with pytest.raises(StoreUnavailable):
        add(through)
    assert assets(database) == is_done
    attempts = []
    proxy.cut_at_commit = proxy.commits + 1

    def work() -> None:
        attempts.append(1)
        add(through)

    through.retrying("add", work)
    assert len(attempts) == 2
    assert assets(database) == 1


class Clock(threading.Event):
    """Time as a retry sees it: it passes where it is waited, and where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now = 0.0
        monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: self.now))

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_retries_end_and_says_how_long_it_was(clock: Clock) -> None:
    def away() -> None:
        raise StoreUnavailable("nobody answers")

    with pytest.raises(StoreOutOfReach, match=r"waited 0\.5 s for it"):
        Retry(0.5).outlast("work", away, away, clock)
    assert clock.now == pytest.approx(0.5)


def test_time_that_work_takes_does_not_count_as_waiting(clock: Clock) -> None:
    calls = []

    def work() -> str:
        calls.append(1)
        if len(calls) < 3:
            clock.now += 60  # longer than is waited in all
            raise StoreUnavailable("gone in the middle")
        return "done"

    # The waits before the second and third attempt are 0.25 s and 0.5 s at most.
    assert Retry(1.0).outlast("work", work, lambda: None, clock) == "done"
    assert 120 < clock.now <= 120.75


def test_work_that_always_fails_is_given_up_though_the_server_answers(clock: Clock) -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise StoreUnavailable("cut off")

    with pytest.raises(StoreOutOfReach):
        Retry(1.0).outlast("work", work, lambda: None, clock)
    assert 1 < len(calls) < 10


@pytest.mark.parametrize("error", [StoreError("no"), StoreOutOfReach("wrong password")])
def test_what_waiting_does_not_mend_is_not_tried_again(error: StoreError) -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error), match=str(error)):
        Retry(60).outlast("work", work, lambda: None)
    assert len(calls) == 1


def test_without_retries_the_error_is_the_first_one() -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable, match=r"^gone$"):
        Retry(0).outlast("work", work, lambda: None)
    assert len(calls) == 1


def test_an_interrupt_ends_the_waiting() -> None:
    given_up = threading.Event()

    def work() -> None:
        given_up.set()
        raise StoreUnavailable("gone")

    with pytest.raises(StoreOutOfReach, match="waiting was stopped"):
        Retry(600).outlast("work", work, lambda: None, given_up)


def test_a_silent_network_ends_a_statement_though_each_packet_is_acknowledged(
    proxy: Proxy, through: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_silent() -> None:
        with through.begin() as session:
            session.execute(sa.text("SELECT 1"))
            proxy.silent = True
            patched.setattr(module._Connection, "answer_s", 1.0)
            session.execute(sa.text("SELECT 2"))

    with (
        monkeypatch.context() as patched,
        pytest.raises(StoreUnavailable, match="not responded for 1 s"),
    ):
        fall_silent()
    proxy.silent = False
    assert assets(through) == 0  # on another connection


def test_a_slow_network_is_no_silent_one(proxy: Proxy, through: Database) -> None:
    proxy.pause_s = 0.01
    add_asset_by_arrow(through)
    assert assets(through) == 1


def test_connections_that_were_cut_while_idle_are_not_handed_out(
    proxy: Proxy, through: Database
) -> None:
    add_asset(through)
    add_asset_by_arrow(through)
    proxy.cut()
    add_asset_by_arrow(through)
    assert assets(through) == 1
