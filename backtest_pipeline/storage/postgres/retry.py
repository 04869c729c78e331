"""Retries: waits for a temporarily unavailable database, and repeats the interrupted work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import uniform
from threading import Event
from typing import TypeVar

from backtest_pipeline.market.errors import (
    StoreLocked,
    StoreOutOfReach,
    StoreOvertaken,
    StoreUnavailable,
)
from backtest_pipeline.storage.postgres.sessions import WORKER_TTL_S

T = TypeVar("T")

DEFAULT_S = 120.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
# Three waits for a lock outlast the longest statement of whoever holds it (`sessions`).
_LOCKED_ATTEMPTS = 3

_log = logging.getLogger(__name__)


def nothing(_given_up: Event) -> None:
    """Leave the locks of others alone."""


def reviving(connect: Callable[[], T], revive: Callable[[], None] | None) -> T:
    """Connect; where that fails, restart the embedded server and connect once more.

    Args:
        connect: opens a connection, or raises the driver's error.
        revive: restarts the embedded server if it has died; None for a server of the user's own.
    """
    try:
        return connect()
    except Exception:  # each driver has errors of its own
        if revive is None:
            raise
        revive()
        return connect()


@dataclass(frozen=True)
class Retry:
    """How long to wait for an unavailable database.

    Attributes:
        total_s: maximum seconds to wait per piece of work; 0 for no waiting. Only time without a
            response counts, not the time of the work.
        still_s: seconds after which a client that sends nothing counts as frozen.
    """

    total_s: float = DEFAULT_S
    still_s: float = WORKER_TTL_S

    def outlast(
        self,
        what: str,
        work: Callable[[], T],
        ping: Callable[[], None],
        given_up: Event | None = None,
        unlock: Callable[[Event], None] = nothing,
    ) -> T:
        """Do some work, and repeat it if the database connection is lost in the middle of it.

        It is also repeated if others replaced what it had read before it was done, or held what it
        was to write.

        The work must be idempotent: if the response to a COMMIT is lost, nobody knows whether it
        took effect, so the work is done again.

        Args:
            what: name of the work in the log.
            work: the work, from its first read of the database to its last write.
            ping: raises StoreUnavailable while the server does not respond.
            given_up: when set, stops the waiting.
            unlock: frees what others hold who stand still; called after a lock was waited for in
                vain.

        Raises:
            StoreOutOfReach: if the server did not come back in time, or refuses the connection.
            StoreOvertaken: if others replaced the inputs each time.
            StoreLocked: if others held the rows each time.
        """
        given_up = given_up or Event()
        left, locked = self.total_s, 0
        for attempt in count(1):
            try:
                return work()
            except StoreOutOfReach:
                raise
            except (StoreUnavailable, StoreOvertaken, StoreLocked) as error:
                locked += isinstance(error, StoreLocked)
                if not self.total_s or locked == _LOCKED_ATTEMPTS:
                    raise
                _log.warning("%s, attempt %d: %s; retrying", what, attempt, error)
                if isinstance(error, StoreLocked):
                    unlock(given_up)
                began = time.monotonic()
                self._wait(error, attempt, left, ping, given_up)
                left -= time.monotonic() - began
        raise AssertionError  # the counting has no end

    def _wait(
        self,
        reason: StoreUnavailable | StoreOvertaken | StoreLocked,
        attempt: int,
        left: float,
        ping: Callable[[], None],
        given_up: Event,
    ) -> None:
        """Wait until the server responds, with a pause that grows with each attempt."""
        deadline = time.monotonic() + left
        for n in count(attempt):
            pause = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(n - 1, 10))
            pause *= uniform(0.5, 1)  # noqa: S311  (so that not all retry at once)
            if given_up.wait(min(pause, max(0.0, deadline - time.monotonic()))):
                raise StoreOutOfReach(f"{reason}; waiting was stopped") from reason
            if time.monotonic() >= deadline and not isinstance(reason, StoreUnavailable):
                raise reason
            if time.monotonic() >= deadline:
                raise StoreOutOfReach(
                    f"{reason}; waited {self.total_s:g} s for it (BACKTEST_STORE_RETRY_S)"
                ) from reason
            try:
                ping()
            except StoreOutOfReach:
                raise
            except StoreUnavailable as error:
                reason = error
            else:
                return
