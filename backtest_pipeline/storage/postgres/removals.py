"""The lock between those who need artifacts or old runs, and those who remove them.

Whoever writes artifacts, or goes by some that are there, shares it until the commit of the rows
that name them; whoever removes has it alone. It is taken before any other lock of a transaction,
so that nobody waits in a circle.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

_LOCK = "hashtextextended('artifacts', 0)"
SHARE = f"SELECT pg_advisory_xact_lock_shared({_LOCK})"
_TAKE = f"SELECT pg_advisory_xact_lock({_LOCK})"


def hold_off_removals(connection: Connection) -> None:
    """Until this transaction ends, no artifact is removed and no run is chosen for removal."""
    connection.execute(text(SHARE))


def remove_alone(connection: Connection) -> None:
    """Until this transaction ends, nobody else removes, and nobody publishes."""
    connection.execute(text(_TAKE))
