"""Waits for what happens elsewhere, and gates that hold somebody up until a test has looked.

No test supposes that work takes long, or that it is done by then: what must be under way waits at a
gate, and what must have happened is waited for. The limits only end a test that would hang.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from backtest_pipeline.sources.base import AssetInfo
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.dimensions import register_assets
from backtest_pipeline_tests.sql import execute_sql

LIMIT_S = 300
_PAUSE_S = 0.01
# Who asks a server all the time takes from what is waited for the core that it runs on.
_PAUSES_PER_ANSWER = 4


def until(is_so: Callable[[], object], told: Callable[[], str] = lambda: "") -> None:
    """Return when something is so.

    Args:
        is_so: asked again and again, with pauses that are longer the longer the answers take.
        told: what to say where it never was.
    """
    deadline = time.monotonic() + LIMIT_S
    while True:
        asked = time.monotonic()
        if is_so():
            return
        answered = time.monotonic()
        assert answered < deadline, f"it has not happened for {LIMIT_S} s; {told()}"
        time.sleep(min(max(_PAUSE_S, _PAUSES_PER_ANSWER * (answered - asked)), 1.0))


@dataclass(frozen=True)
class Gate:
    """What others wait at in a database of the test's own."""

    database: Database

    def hold_up(self, n: int = 1) -> None:
        """Return when so many wait here at once."""
        until(lambda: self._waiting() == n)

    def be_left(self) -> None:
        """Return when nobody waits here any more."""
        until(lambda: self._waiting() == 0)

    def _waiting(self) -> int:
        with self.database.begin() as connection:
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN"
            here = "(SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
            return int(connection.scalar(sa.text(f"{query} {here}")) or 0)


@contextmanager
def gate_for(database: Database, symbol: str) -> Iterator[Gate]:
    """Whoever stores bars of a symbol waits until this ends, for a minute at most."""
    with database.engine.connect() as connection:  # rolled back at the end
        asset = AssetInfo(symbol, "behind a gate", "crypto", None, synthetic=False)
        register_assets(connection, [asset], "gate")
        yield Gate(database)


@contextmanager
def gate_after(database: Database, table: str, n: int) -> Iterator[Gate]:
    """Whoever adds to a table that has so many rows already waits until this ends."""
    lock = f"hashtextextended('{table}', 1)"
    with database.begin() as connection:
        connection.execute(
            sa.text(f"""
                CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF (SELECT count(*) FROM {table}) >= {n} THEN
                        PERFORM pg_advisory_xact_lock_shared({lock});
                    END IF;
                    RETURN NULL;
                END $$
            """)
        )
        trigger = "CREATE TRIGGER gate BEFORE INSERT ON {} EXECUTE FUNCTION wait_at_gate()"
        connection.execute(sa.text(trigger.format(table)))
    with database.begin() as holder:
        holder.execute(sa.text(f"SELECT pg_advisory_xact_lock({lock})"))
        yield Gate(database)
    execute_sql(database, "DROP FUNCTION wait_at_gate CASCADE")
