"""One process at a time holds a lock, and those that inherit its connection."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest

from backtest_pipeline.market.errors import AlreadyRunning
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.postgres.session_lock import SessionLock
from backtest_pipeline_tests.pipeline.processes import event, started
from backtest_pipeline_tests.sql import execute_sql
from backtest_pipeline_tests.waiting import LIMIT_S, until

NAME = "daemon"
_SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


def can_take(database: Database) -> bool:
    try:
        SessionLock(database, NAME).release()
    except AlreadyRunning:
        return False
    return True


def end_sessions(database: Database) -> None:
    """As a server does that is restarted."""
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    execute_sql(database, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")


def test_a_second_one_is_refused_until_the_first_lets_go(database: Database) -> None:
    first = SessionLock(database, NAME)
    with pytest.raises(AlreadyRunning, match="another process is the daemon of this store"):
        SessionLock(database, NAME)
    first.release()
    assert can_take(database)


def test_a_lock_that_is_released_can_be_taken_at_once(database: Database) -> None:
    for _ in range(50):
        SessionLock(database, NAME).release()
    lost = SessionLock(database, NAME)
    end_sessions(database)
    lost.release()
    until(lambda: can_take(database))  # the server says that a session ends before it lets go


def test_two_stores_in_one_database_have_locks_of_their_own(database: Database) -> None:
    execute_sql(database, "CREATE SCHEMA other")
    with closing(SessionLock(database, NAME)):
        other = connect_database(f"{database.conninfo} options='-csearch_path=other'")
        assert can_take(other)
        other.close()


def _hold(conninfo: str, taken: object, child_pid: object) -> None:
    lock = SessionLock(connect_database(conninfo), NAME)
    child = subprocess.Popen(_SLEEP, pass_fds=[lock.fileno()])
    child_pid.value = child.pid  # pyright: ignore[reportAttributeAccessIssue]
    taken.set()  # pyright: ignore[reportAttributeAccessIssue]
    child.wait()


def test_who_inherits_the_connection_holds_the_lock_after_its_taker_was_killed(
    database: Database,
) -> None:
    import multiprocessing as mp

    import psutil

    taken, child_pid = event(), mp.get_context("forkserver").Value("i")
    process = started(_hold, database.conninfo, taken, child_pid)
    assert taken.wait(LIMIT_S)
    process.kill()
    process.join()
    assert not can_take(database)
    psutil.Process(child_pid.value).kill()
    until(lambda: can_take(database))


def test_a_lock_that_was_lost_with_its_server_is_taken_again(database: Database) -> None:
    with closing(SessionLock(database, NAME)) as lock:
        end_sessions(database)
        until(lambda: can_take(database))
        lock.keep()
        assert not can_take(database)
        end_sessions(database)
        until(lambda: can_take(database))
        with closing(SessionLock(database, NAME)), pytest.raises(AlreadyRunning):
            lock.keep()


def test_those_that_share_it_keep_out_whoever_does_not(database: Database) -> None:
    with closing(SessionLock(database, NAME, shared=True)):
        with closing(SessionLock(database, NAME, shared=True)), pytest.raises(AlreadyRunning):
            SessionLock(database, NAME)
        with pytest.raises(AlreadyRunning):
            SessionLock(database, NAME)
    with closing(SessionLock(database, NAME)), pytest.raises(AlreadyRunning):
        SessionLock(database, NAME, shared=True)
