"""Whose request a worker takes next: each user in turn, however many requests they send."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from backtest_pipeline.service.problems import Problem

W = TypeVar("W")


@dataclass(frozen=True, eq=False)
class _Waiter(Generic[W]):
    """A request that waits; its future is the worker that takes it.

    A client that leaves cancels the future at once, and the request is forgotten a moment later.
    """

    slow: bool
    worker: asyncio.Future[W]

    @property
    def is_here(self) -> bool:
        return not self.worker.done()


class Turns(Generic[W]):
    """Hands workers to waiting requests, one user after the other.

    Slow requests may not take the last worker, so that a quick one never waits for all of them.
    Where too many wait, the newest of the user with the most is refused: nobody can fill the queue.
    """

    def __init__(self, size: int, most_waiting: int) -> None:
        """Start without any idle worker.

        Args:
            size: number of workers.
            most_waiting: requests that may wait beside those that have a worker, or whose worker is
                being replaced.
        """
        self._size, self._most_slow, self._most_waiting = size, max(1, size - 1), most_waiting
        self._idle: deque[W] = deque()
        self._waiting: dict[str, deque[_Waiter[W]]] = {}  # by user, who is next first
        self._slow = self.busy = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        return sum(one.is_here for requests in self._waiting.values() for one in requests)

    def add(self, workers: Iterable[W]) -> None:
        """Take workers that are idle."""
        self._idle.extend(workers)
        self._assign()

    async def take(self, user: str, *, slow: bool) -> W:
        """Wait for a worker; `done` must be called afterwards, and `add` gives the worker back.

        Raises:
            Problem: RATE_LIMITED if too many wait, and this user has the most of them.
        """
        request = _Waiter[W](slow, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(user, deque()).append(request)
        self._assign()
        if self.busy + self.waiting > self._size + self._most_waiting:
            self._refuse_newest(user)
        try:
            return await request.worker
        except BaseException:
            taken = request.worker
            if taken.done() and not taken.cancelled() and taken.exception() is None:
                self.done(slow=slow)  # the client left just when its turn came
                self.add([taken.result()])
            else:
                self._forget(user, request)
            raise

    def done(self, *, slow: bool) -> None:
        """Count a request as ended."""
        self.busy -= 1
        self._slow -= slow
        self._assign()

    def _assign(self) -> None:
        while self._idle and (request := self._next()):
            self.busy += 1
            self._slow += request.slow
            request.worker.set_result(self._idle.popleft())

    def _next(self) -> _Waiter[W] | None:
        """Remove and return the request whose turn it is, and put its user last."""
        for user, requests in self._waiting.items():
            for request in requests:
                if request.is_here and (not request.slow or self._slow < self._most_slow):
                    self._forget(user, request)
                    if user in self._waiting:
                        self._waiting[user] = self._waiting.pop(user)
                    return request
        return None

    def _refuse_newest(self, newcomer: str) -> None:
        here = {
            user: [one for one in requests if one.is_here]
            for user, requests in self._waiting.items()
        }
        user = max(here, key=lambda user: (len(here[user]), user == newcomer))
        request = here[user][-1]
        self._forget(user, request)
        request.worker.set_exception(
            Problem(
                "RATE_LIMITED",
                f"{self._most_waiting} requests are already waiting for a worker, and most of them "
                "are yours; submit a job to /backtest/jobs, or try again",
                {"Retry-After": "5"},
            )
        )

    def _forget(self, user: str, request: _Waiter[W]) -> None:
        requests = self._waiting.get(user, deque())
        if request in requests:
            requests.remove(request)
        if not requests:
            self._waiting.pop(user, None)
