"""What the errors of the database drivers mean."""

from __future__ import annotations

from typing import Any

import psycopg

from backtest_pipeline.market.errors import (
    RowsRefused,
    SchemaNotMigrated,
    StoreError,
    StoreLocked,
    StoreOutOfReach,
    StoreUnavailable,
)

DSN = "BACKTEST_POSTGRES_DSN"
FEATURES_DSN = "BACKTEST_FEATURES_DSN"
_LONGEST_REASON = 300
_NO_PASSWORD_FITS = ("28P01", "28000")
_NO_DATABASE = "3D000"
_NO_SUCH_OBJECT = ("42P01", "42703", "42883", "3F000")
_BAD_DATA = ("22", "23")  # the classes "data exception" and "integrity constraint violation"
_TOOK_TOO_LONG, _LOCKED = "57014", "55P03"
# The classes "connection exception", "transaction rollback" (a deadlock) and "operator
# intervention" (a shutdown), "too many connections", and the end of a session that stood still in a
# transaction: worth a retry.
_OF_THE_MOMENT = ("08", "40", "57P", "53300", "25P03")


def translated(error: Any, where: str, variable: str) -> StoreError:
    """Our error for a driver's error, chosen by its SQLSTATE."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # psycopg, psycopg2
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    if len(reason) > _LONGEST_REASON:  # a driver quotes the whole statement before it
        reason = f"... {reason[-_LONGEST_REASON:]}"
    no_such_role = state is None and "role " in reason and reason.endswith("does not exist")
    if state in _NO_PASSWORD_FITS or "authentication failed" in str(error) or no_such_role:
        return StoreOutOfReach(f"{where}: user name or password refused; check {variable}")
    if state == _NO_DATABASE or (state is None and "does not exist" in str(error)):
        return StoreOutOfReach(f"{where}: no such database; create it, or correct {variable}")
    if state in _NO_SUCH_OBJECT and variable == FEATURES_DSN:
        return StoreError(
            f"{where}: {reason}; the table has changed since it was opened; restart this process"
        )
    if state in _NO_SUCH_OBJECT:
        return SchemaNotMigrated(f"{where}: {reason}; run `backtest-pipeline migrate`")
    if state is not None and state.startswith(_BAD_DATA):
        return RowsRefused(f"{where}: {reason}")
    if state == _LOCKED:
        return StoreLocked(f"{where}: {reason}; another writer holds the rows")
    if state == _TOOK_TOO_LONG:
        return StoreError(
            f"{where}: {reason}; another writer holds the rows, or the batch is too large"
        )
    of_the_moment = (
        state.startswith(_OF_THE_MOMENT)
        if state
        else isinstance(error, psycopg.OperationalError)
        or type(error).__name__ == "OperationalError"
    )
    if of_the_moment:
        return StoreUnavailable(
            f"{where}: {reason}; check that the server is running and that {variable} is correct"
        )
    return StoreError(f"{where}: {reason}")
