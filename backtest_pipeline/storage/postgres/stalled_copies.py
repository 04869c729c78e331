"""Ends COPYs whose client stands still, for nothing else in the server does.

While it waits for rows of a COPY, the server heeds neither the limit of a statement nor that of an
idle transaction, and a process that was stopped or swapped out keeps its connection. Its locks
would be held until it dies.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import sqlalchemy as sa

from backtest_pipeline.market.errors import StoreError

if TYPE_CHECKING:
    from threading import Event

    from backtest_pipeline.storage.postgres.database import Database

Stage = tuple[int, float, int]
"""A COPY as it stands: the server's process, when it began, and the bytes that have arrived."""

# Of this database's COPYs from a client those that hold a lock of ours and wait for rows; what
# belongs to another role has no bytes that we may see.
_WAITING = """
    SELECT copied.pid, extract(epoch FROM query_start)::float8, copied.bytes_processed
    FROM pg_stat_progress_copy AS copied JOIN pg_stat_activity AS active USING (pid)
    WHERE copied.datname = current_database() AND copied.command = 'COPY FROM'
        AND copied.type = 'PIPE' AND copied.bytes_processed IS NOT NULL
        AND active.wait_event = 'ClientRead'
        AND EXISTS (SELECT FROM pg_locks WHERE pid = copied.pid AND locktype = 'advisory')
"""
_END = "SELECT pg_terminate_backend(:pid)"

_log = logging.getLogger(__name__)


class StalledCopies:
    """Compares the COPYs of a store with those of an earlier look."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._before: frozenset[Stage] = frozenset()

    def look(self) -> int:
        """End the COPYs to which nothing has been added since the last look; returns their number.

        The caller lets a worker's time pass between two looks.
        """
        with self._database.begin() as connection:
            now = frozenset(Stage(row) for row in connection.execute(sa.text(_WAITING)))
        stalled = now & self._before
        self._before = now - stalled
        ended = 0
        for pid, _, n_bytes in stalled:
            try:
                with self._database.begin() as connection:
                    ended += bool(connection.scalar(sa.text(_END), {"pid": pid}))
            except StoreError as error:  # a role that may not
                _log.warning("the COPY of session %d stands still: %s", pid, error)
            else:
                _log.warning("ended session %d, whose COPY stood still at %d bytes", pid, n_bytes)
        return ended


def end_stalled(database: Database, seconds: float, given_up: Event) -> None:
    """Let `seconds` pass and end the COPYs that stood still in them; less once `given_up` is set.

    Raises:
        StoreUnavailable: where the database cannot be reached.
    """
    copies = StalledCopies(database)
    copies.look()
    if not given_up.wait(seconds):
        copies.look()
