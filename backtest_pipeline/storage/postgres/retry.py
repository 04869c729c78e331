"""Waiting for a database that has gone away for a moment, and doing again what it interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import uniform
from threading import Event
from typing import TypeVar

from backtest_pipeline.market.errors import StoreOutOfReach, StoreOvertaken, StoreUnavailable

T = TypeVar("T")

DEFAULT_S = 120.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0

_log = logging.getLogger(__name__)


def nothing_to_revive() -> None:
    """Nothing to do about a server that others run."""


@dataclass(frozen=True)
class Retry:
    """How long a database is waited for.

    Attributes:
        total_s: seconds that are waited at most for one piece of work; 0 for not at all. Only
            the time without an answer counts, not that of the work.
        revive: called before each look whether the server answers; starts one of our own.
    """

    total_s: float = DEFAULT_S
    revive: Callable[[], None] = nothing_to_revive

    def outlast(
        self,
        what: str,
        work: Callable[[], T],
        ping: Callable[[], None],
        given_up: Event | None = None,
    ) -> T:
        """Do some work, and do it again where the database went away in the middle of it.

        It is also done again where others have replaced what it had read before it was done.

        The work must come to the same however often it is done: of a transaction whose COMMIT got
        no answer nobody knows whether it was done, and doing it again is how it is found out.

        Args:
            what: names the work in the log.
            work: what to do, from its first look at the database to its last.
            ping: raises StoreUnavailable while the server does not answer.
            given_up: ends the waiting when it is set.

        Raises:
            StoreOutOfReach: where the server did not come back in time, or refuses us.
            StoreOvertaken: where others were faster each time.
        """
        given_up = given_up or Event()
        left = self.total_s
        for attempt in count(1):
            try:
                return work()
            except StoreOutOfReach:
                raise
            except (StoreUnavailable, StoreOvertaken) as error:
                if not self.total_s:
                    raise
                _log.warning("%s, attempt %d: %s; doing it again", what, attempt, error)
                began = time.monotonic()
                self._wait(error, attempt, left, ping, given_up)
                left -= time.monotonic() - began
        raise AssertionError  # the counting has no end

    def _wait(
        self,
        reason: StoreUnavailable | StoreOvertaken,
        attempt: int,
        left: float,
        ping: Callable[[], None],
        given_up: Event,
    ) -> None:
        """Return when the server answers; at the earliest after a pause that grows by attempt."""
        deadline = time.monotonic() + left
        for n in count(attempt):
            pause = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(n - 1, 10))
            pause *= uniform(0.5, 1)  # noqa: S311  (that not all come back at once)
            if given_up.wait(min(pause, max(0.0, deadline - time.monotonic()))):
                raise StoreOutOfReach(f"{reason}; no longer waited for") from reason
            if time.monotonic() >= deadline and isinstance(reason, StoreOvertaken):
                raise reason
            if time.monotonic() >= deadline:
                raise StoreOutOfReach(
                    f"{reason}; waited {self.total_s:g} s for it (BACKTEST_STORE_RETRY_S)"
                ) from reason
            try:
                self.revive()
                ping()
            except StoreOutOfReach:
                raise
            except StoreUnavailable as error:
                reason = error
            else:
                return
