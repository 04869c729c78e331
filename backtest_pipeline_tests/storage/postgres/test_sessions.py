"""A client that dies or stands still loses its locks, and who waits for them waits long enough."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo

from backtest_pipeline.market.errors import StoreLocked, StoreUnavailable
from backtest_pipeline.storage.postgres import sessions
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.postgres.retry import Retry
from backtest_pipeline.storage.postgres.stalled_copies import StalledCopies
from backtest_pipeline_tests.sql import scalar
from backtest_pipeline_tests.waiting import until

LOCK = "SELECT pg_advisory_xact_lock(1)"
# Holds an advisory lock in a transaction: during a statement, in none, or in the middle of a COPY.
HOLDER = f"""
import sys
import psycopg
with psycopg.connect(sys.argv[1]) as connection:
    connection.execute("CREATE TEMPORARY TABLE copied (x text)")
    connection.execute("{LOCK}")
    if sys.argv[2] == "idle":
        print("holds", flush=True)
        sys.stdin.read()
    elif sys.argv[2] == "copying":
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            copy.write("x\\n" * 100_000)
            print("holds", flush=True)
            sys.stdin.read()
    else:
        print("holds", flush=True)
        connection.execute(sys.argv[2])
"""
FOREVER, A_WHILE = "SELECT pg_sleep(600)", "SELECT pg_sleep(0.5)"


@contextmanager
def holder(database: Database, doing: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, database.conninfo, doing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        if doing not in ("idle", "copying"):
            until(lambda: scalar(database, _RUNNING), lambda: f"nobody runs {doing}")
        yield process
    finally:
        process.kill()
        process.communicate()


_RUNNING = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    " AND state = 'active' AND datname = current_database())"
)


@pytest.fixture
def opened(database: Database) -> Iterator[Callable[..., Database]]:
    """Opens the database with session settings of its own."""
    ours: list[Database] = []

    def open_one(**settings: str) -> Database:
        options = sessions.options_of(settings)
        ours.append(connect_database(make_conninfo(database.conninfo, options=options)))
        return ours[-1]

    yield open_one
    for one in ours:
        one.close()


def take(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text(LOCK))


def test_a_worker_is_given_up_before_its_session_and_that_before_a_wait_for_its_locks(
    database: Database,
) -> None:
    assert 60 <= sessions.WORKER_TTL_S < sessions.IDLE_IN_TRANSACTION_S < sessions.LOCK_TIMEOUT_S
    query = "SELECT setting::int / (CASE unit WHEN 'ms' THEN 1000 ELSE 1 END) FROM pg_settings"
    for name, seconds in {
        "idle_in_transaction_session_timeout": sessions.IDLE_IN_TRANSACTION_S,
        "lock_timeout": sessions.LOCK_TIMEOUT_S,
        "statement_timeout": sessions.STATEMENT_TIMEOUT_S,
        "client_connection_check_interval": sessions.CLIENT_CHECK_S,
    }.items():
        assert scalar(database, f"{query} WHERE name = '{name}'") == seconds
        with database.arrow() as connection, connection.cursor() as cursor:
            cursor.execute(f"{query} WHERE name = '{name}'")
            assert cursor.fetchall() == [(seconds,)]


@pytest.mark.parametrize("doing", [FOREVER, "idle", "copying"])
def test_a_killed_client_keeps_no_lock(opened: Callable[..., Database], doing: str) -> None:
    waiting = opened(lock_timeout="30s")
    with holder(waiting, doing) as process:
        process.kill()
        take(waiting)


@pytest.mark.parametrize("doing", [A_WHILE, "idle"])
def test_a_client_that_stands_still_loses_its_locks_while_others_wait(
    opened: Callable[..., Database], doing: str
) -> None:
    frozen = opened(idle_in_transaction_session_timeout="1s", lock_timeout="30s")
    with holder(frozen, doing) as process:
        process.send_signal(signal.SIGSTOP)
        take(frozen)


def test_a_client_that_went_on_too_late_does_its_work_again(
    opened: Callable[..., Database],
) -> None:
    frozen = opened(idle_in_transaction_session_timeout="100ms")

    def late_by_engine() -> None:
        with frozen.begin() as connection:
            pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            wait_for_the_end_of(pid)
            connection.execute(sa.text("SELECT 1"))

    def late_by_arrow() -> None:
        with frozen.arrow() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            ((pid,),) = cursor.fetchall()
            wait_for_the_end_of(pid)
            cursor.execute("SELECT 1")

    def wait_for_the_end_of(pid: int | None) -> None:
        is_there = f"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"
        until(lambda: not scalar(frozen, is_there), lambda: "the session goes on")

    for late in (late_by_engine, late_by_arrow):
        with pytest.raises(StoreUnavailable):
            late()


def test_a_copy_that_stands_still_is_ended_and_one_that_moves_is_not(
    opened: Callable[..., Database],
) -> None:
    waiting = opened(lock_timeout="30s", idle_in_transaction_session_timeout="100ms")
    copies = StalledCopies(waiting)
    with holder(waiting, "copying") as process:
        until(lambda: scalar(waiting, _COPIED), lambda: "no COPY has begun")
        process.send_signal(signal.SIGSTOP)
        assert copies.look() == 0  # the first time that it is seen
        assert copies.look() == 1
        take(waiting)


_COPIED = (
    "SELECT EXISTS (SELECT FROM pg_stat_progress_copy JOIN pg_stat_activity USING (pid)"
    " WHERE bytes_processed > 0 AND wait_event = 'ClientRead')"
)


def test_a_copy_that_moves_is_left_alone(database: Database) -> None:
    copies = StalledCopies(database)
    with psycopg.connect(database.conninfo) as connection:
        connection.execute("CREATE TEMPORARY TABLE copied (x text)")
        connection.execute(LOCK)
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            for _ in range(3):
                before = scalar(database, _BYTES)
                copy.write("x\n" * 100_000)
                until(lambda before=before: scalar(database, _BYTES) > before)
                assert copies.look() == 0
        assert connection.execute("SELECT count(*) FROM copied").fetchone() == (300_000,)


_BYTES = "SELECT coalesce(max(bytes_processed), 0) FROM pg_stat_progress_copy"


_HELD = (
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database()))"
)


def test_work_that_met_a_lock_is_done_again(opened: Callable[..., Database]) -> None:
    waiting = replace(opened(lock_timeout="50ms"), retry=Retry(30, still_s=0))
    met: list[str] = []
    with holder(waiting, "idle") as process:

        def work() -> None:
            try:
                take(waiting)
            except StoreLocked as error:
                met.append(str(error))
                process.kill()
                process.wait()
                # The server notices it when it gets to run, and no attempt waits that long.
                until(lambda: not scalar(waiting, _HELD), lambda: "the lock is still held")
                raise

        waiting.retrying("work", work)
    assert "another writer holds the rows" in met[0]


def test_work_that_meets_a_lock_again_and_again_is_given_up(
    opened: Callable[..., Database],
) -> None:
    waiting = replace(opened(lock_timeout="50ms"), retry=Retry(30, still_s=0))
    attempts: list[int] = []

    def work() -> None:
        attempts.append(1)
        take(waiting)

    with holder(waiting, "idle"), pytest.raises(StoreLocked):
        waiting.retrying("work", work)
    assert len(attempts) == 3


def test_a_copy_that_stands_still_is_ended_for_work_that_meets_its_lock(
    opened: Callable[..., Database],
) -> None:
    waiting = replace(opened(lock_timeout="500ms"), retry=Retry(30, still_s=0.1))
    with holder(waiting, "copying") as process:
        until(lambda: scalar(waiting, _COPIED), lambda: "no COPY has begun")
        process.send_signal(signal.SIGSTOP)
        waiting.retrying("work", lambda: take(waiting))


@pytest.mark.parametrize(("name", "every"), [("never_heard_of", "2s"), (None, "-1s")])
def test_a_server_that_cannot_look_at_its_clients_is_used_without(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str | None, every: str
) -> None:
    assert "client_connection_check_interval=2s" in database.conninfo
    plain = make_conninfo(database.conninfo, options=sessions.options_of(sessions.SESSION))
    monkeypatch.setattr(sessions, "_CLIENT_CHECK_EVERY", every)
    if name is not None:
        monkeypatch.setattr(sessions, "_CLIENT_CHECK", name)
    without = connect_database(plain)
    assert scalar(without, "SHOW client_connection_check_interval") == "0"
    without.close()
