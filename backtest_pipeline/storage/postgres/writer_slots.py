"""The bound of transactions that write in bulk at once, over all processes and hosts of a store.

A server computes no faster than its own cores, however many workers write to it. Each such
transaction first takes one of a few slots, which are advisory locks of the transaction: whatever
ends it frees the slot. It holds no other lock while it waits for one, so that nothing can wait for
it in a circle.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from random import randrange, uniform
from threading import Event
from typing import TYPE_CHECKING

from backtest_pipeline.market.errors import StoreOutOfReach

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

    from backtest_pipeline.storage.postgres.stalled_copies import StalledCopies

# Locks of two numbers never meet those of one, which all others are.
_TAKE = """
    SELECT (k + {first}) % {most} AS slot FROM generate_series(0, {most} - 1) AS k
    WHERE pg_try_advisory_xact_lock(
        hashtext(current_schema() || '/writers'), ((k + {first}) % {most})::int
    )
    LIMIT 1
"""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5

_given_up: ContextVar[Event | None] = ContextVar("given_up", default=None)
_log = logging.getLogger(__name__)


@contextmanager
def waiting_until(given_up: Event) -> Iterator[None]:
    """Within the block, waits of this thread for a slot end when the event is set."""
    token = _given_up.set(given_up)
    try:
        yield
    finally:
        _given_up.reset(token)


def take_slot(cursor: Cursor, most: int, copies: StalledCopies, still_s: float) -> int:
    """Wait for a slot, and hold it until the cursor's transaction ends.

    Args:
        cursor: of a transaction that holds no lock yet.
        most: number of slots; the largest number of all processes counts.
        copies: looked at each `still_s` seconds, because a writer that stands still in a COPY would
            keep its slot for good.
        still_s: seconds after which a writer that sends nothing counts as frozen.

    Returns:
        The number of the slot, from 0.

    Raises:
        StoreOutOfReach: where the waiting was given up (`waiting_until`).
    """
    given_up = _given_up.get() or Event()
    began, looked, pause = time.monotonic(), time.monotonic(), _FIRST_PAUSE_S
    while True:
        cursor.execute(_TAKE.format(first=randrange(most), most=most))  # noqa: S311
        found = cursor.fetchone()
        if found is not None:
            return int(found[0])
        if given_up.wait(uniform(0.5, 1) * pause):  # noqa: S311  (so that not all ask at once)
            raise StoreOutOfReach("waiting to write was stopped")
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        now = time.monotonic()
        if now - looked >= still_s:
            looked = now
            _log.info("waited %.0f s for one of %d writers (BACKTEST_WRITERS)", now - began, most)
            copies.look()
