"""How long a session of the database waits, and when the server ends it.

A client that dies or stands still must not keep others from its work: the server lets its locks go
in time, and whoever waits for them waits longer than that.
"""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

WORKER_TTL_S = 60
"""Seconds without a sign of life after which a worker of the pool counts as frozen.

Not less: a call that holds the interpreter's lock for long looks the same.
"""
IDLE_IN_TRANSACTION_S = 5 * 60
"""Seconds after which the server ends a session that stands still in a transaction.

Longer than a worker's time, because a pool that gives its worker up ends the session at once; and
longer than a bucket is waited for, whose files are written within a transaction.
"""
LOCK_TIMEOUT_S = 6 * 60
"""Seconds that a statement waits for a lock: longer than a holder that stands still may keep it."""
STATEMENT_TIMEOUT_S = 15 * 60
"""Seconds after which the server ends a statement."""
CLIENT_CHECK_S = 2
"""Seconds between the server's looks, during a statement, at whether its client is still there."""

SESSION = {
    "timezone": "UTC",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
    "jit": "off",
    # So that the server notices within a minute that the machine of a client is gone.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
"""Settings of every session; a connection string may override them."""
_CLIENT_CHECK, _CLIENT_CHECK_EVERY = "client_connection_check_interval", f"{CLIENT_CHECK_S}s"


def options_of(settings: dict[str, str]) -> str:
    """The settings as libpq's `options`."""
    return " ".join(f"-c{name}={value}" for name, value in settings.items())


def with_client_check(connection: psycopg.Connection[object], conninfo: str) -> str:
    """The connection string, with the look at the client where this server can do it.

    Without it the statement of a killed client runs to its end and keeps its locks as long. Servers
    before PostgreSQL 14 do not know the setting, and those on Windows refuse it.

    Args:
        connection: to that server; rolled back if it refuses.
        conninfo: what is connected to; its own options come last, and so override this one.
    """
    try:
        connection.execute("SELECT set_config(%s, %s, FALSE)", [_CLIENT_CHECK, _CLIENT_CHECK_EVERY])
    except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
        connection.rollback()
        return conninfo
    options = conninfo_to_dict(conninfo).get("options") or ""
    check = options_of({_CLIENT_CHECK: _CLIENT_CHECK_EVERY})
    return make_conninfo(conninfo, options=f"{check} {options}")
