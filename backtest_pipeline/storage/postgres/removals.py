"""The lock between writers that rely on artifacts or runs, and retention, which removes them.

A writer of artifacts, or one that relies on existing artifacts, holds it shared until it has
committed the rows that name them; a remover holds it exclusively. It is taken before any other lock
of a transaction, to avoid deadlocks. A remover asks for it again and again instead of queueing:
behind one that queues, the server would hold up every writer until a backup is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import RemovalHeldUp

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.database import Database

_LOCK = "hashtextextended('artifacts', 0)"
SHARE = f"SELECT pg_advisory_xact_lock_shared({_LOCK})"
_TRY = f"SELECT pg_try_advisory_xact_lock({_LOCK})"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5
LONGEST_WAIT_S = 600.0
"""How long a remover asks for the lock."""


def block_removals(connection: Connection) -> None:
    """Block removal of artifacts and marking of runs until this transaction ends."""
    connection.execute(text(SHARE))


@contextmanager
def nobody_writing(database: Database) -> Iterator[bool]:
    """Whether nobody publishes or removes artifacts; then nobody begins to within the block."""
    with database.begin() as connection:
        yield bool(connection.scalar(text(_TRY)))


def lock_for_removal(connection: Connection, most_s: float = LONGEST_WAIT_S) -> None:
    """Block all other removals and all publishing until this transaction ends.

    Raises:
        RemovalHeldUp: where writers or a backup still hold the lock after `most_s` seconds.
    """
    deadline, pause = time.monotonic() + most_s, _FIRST_PAUSE_S
    while not connection.scalar(text(_TRY)):
        if time.monotonic() >= deadline:
            raise RemovalHeldUp(
                f"for {most_s:g} s a backup or other writers have kept artifacts from being "
                "removed; try again when they are done"
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
