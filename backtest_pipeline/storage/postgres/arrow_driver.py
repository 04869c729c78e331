"""Arrow connections to Postgres, reused when idle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from backtest_pipeline.storage.postgres.retry import reviving

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection as ArrowConnection


class ArrowDriver:
    """Arrow connections of one driver, opened on first use and reused when idle.

    A driver reads all types of the database on opening, which takes eight times as long as
    connecting; connecting takes thirty times as long as a statement.
    """

    def __init__(self, conninfo: str, revive: Callable[[], None] | None) -> None:
        self._conninfo, self._revive = conninfo, revive
        self._lock = Lock()
        self._first: ArrowConnection | None = None
        self._idle: list[ArrowConnection] = []

    @contextmanager
    def connection(self) -> Iterator[ArrowConnection]:
        """A connection for exclusive use, in a transaction; after an error it is closed."""
        connection = self._taken() or reviving(self._opened, self._revive)
        try:
            connection.adbc_connection.set_autocommit(False)
            yield connection
            # An idle connection must not be in a transaction or hold temporary tables.
            connection.adbc_connection.set_autocommit(True)
            _execute(connection, "DISCARD TEMP")
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)

    def _taken(self) -> ArrowConnection | None:
        """An idle connection whose server still responds; None without one."""
        from adbc_driver_manager import Error as ArrowError

        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            try:
                _execute(connection, "SELECT 1")
            except ArrowError:
                connection.close()  # the server was restarted, or has ended the session
            else:
                return connection

    def _opened(self) -> ArrowConnection:
        from adbc_driver_postgresql.dbapi import connect

        with self._lock:
            if self._first is None:
                self._first = connect(self._conninfo, autocommit=True)
            return self._first.adbc_clone()

    def close(self) -> None:
        """Close the connections and the driver, which reopens on the next use."""
        with self._lock:
            for connection in (*self._idle, *([self._first] if self._first else [])):
                connection.close()
            self._idle, self._first = [], None


def _execute(connection: ArrowConnection, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
