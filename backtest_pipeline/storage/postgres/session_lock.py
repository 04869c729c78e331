"""A lock on a store that lasts as long as a process, and as those that inherit its connection."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import LiteralString

import psycopg

from backtest_pipeline.market.errors import AlreadyRunning, StoreUnavailable
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.retry import reviving

_TAKE = "SELECT pg_try_advisory_lock(hashtextextended(current_schema() || '/' || %s, 0))"
_SHARE = "SELECT pg_try_advisory_lock_shared(hashtextextended(current_schema() || '/' || %s, 0))"

DAEMON_LOCK = "Dagster daemon"
"""What `up` is to a store, by the name of its lock."""
CODE_SERVER_LOCK = "Dagster code server"
"""What `code-server` is to a store; any number of code servers, and their runs, share the lock."""
SERVICE_LOCK = "HTTP service"
"""What `serve` is to a store; any number of services share the lock."""

_log = logging.getLogger(__name__)


class SessionLock:
    """An advisory lock of a database session.

    The server ends the session, and with it the lock, once no process has the connection open any
    more: a process that inherits it holds the lock too, whatever becomes of the one that took it.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        advice: str = "end that one first, or use another store",
        shared: bool = False,
    ) -> None:
        """Take the lock.

        Args:
            database: the store's database.
            name: what only one process may do on it.
            advice: what to do where another process does it.
            shared: whether others that share it may do it, too; it keeps out those that do not.

        Raises:
            AlreadyRunning: where another process holds the lock.
            StoreUnavailable: where the database cannot be reached.
        """
        self._database, self._name, self._advice = database, name, advice
        self._query: LiteralString = _SHARE if shared else _TAKE
        self._connection = self._take()

    def _take(self) -> psycopg.Connection[tuple[object, ...]]:
        with self._database.errors():
            connection = reviving(
                lambda: psycopg.connect(self._database.conninfo, autocommit=True),
                self._database.revive,
            )
            row = connection.execute(self._query, [self._name]).fetchone()
        if row is None or not row[0]:
            connection.close()
            raise AlreadyRunning(
                f"{self._database.where}: another process is the {self._name} of this store; "
                f"{self._advice}"
            )
        return connection

    def fileno(self) -> int:
        """File descriptor of the connection, for a process to inherit."""
        return self._connection.fileno()

    def keep(self) -> None:
        """Take the lock again if the server was restarted, and start an embedded one that died.

        Those that inherited the earlier connection do not hold it then.

        Raises:
            AlreadyRunning: where another process was faster.
        """
        try:
            try:
                with self._database.errors():
                    self._connection.execute("SELECT 1")
            except StoreUnavailable:
                self._connection.close()
                self._connection = self._take()
        except StoreUnavailable as error:
            _log.warning("the lock of the %s is not held: %s", self._name, error)

    def close(self) -> None:
        """Let the lock go, a little later; those that inherited the connection hold it on."""
        self._connection.close()

    def release(self) -> None:
        """Let the lock go before this returns, for those that inherited the connection too."""
        with suppress(psycopg.OperationalError):  # one that was lost holds nothing
            self._connection.execute("SELECT pg_advisory_unlock_all()")
        self._connection.close()
