"""The lock between writers that rely on artifacts or runs, and retention, which removes them.

A writer of artifacts, or one that relies on existing artifacts, holds it shared until it has
committed the rows that name them; a remover holds it exclusively. It is taken before any other lock
of a transaction, to avoid deadlocks.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

_LOCK = "hashtextextended('artifacts', 0)"
SHARE = f"SELECT pg_advisory_xact_lock_shared({_LOCK})"
_TAKE = f"SELECT pg_advisory_xact_lock({_LOCK})"


def block_removals(connection: Connection) -> None:
    """Block removal of artifacts and marking of runs until this transaction ends."""
    connection.execute(text(SHARE))


def lock_for_removal(connection: Connection) -> None:
    """Block all other removals and all publishing until this transaction ends."""
    connection.execute(text(_TAKE))
