"""Warm worker processes for what the service computes while a client waits.

Each worker is a pool of its own with one process, so that nothing is shared that a dying process
could take with it: one that crashes, or is killed because its time is over, ends the request that
it had and no other. Requests wait their turn in this process, and more than `waiting` of them are
refused. What takes long may not have the last worker: a quick question always finds its turn.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import multiprocessing.context
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from backtest_pipeline.service.pool_worker import begin, execute_json, warm
from backtest_pipeline.service.problems import Failure, Problem
from backtest_pipeline.storage.logs import request_id
from backtest_pipeline.storage.settings import Settings

T = TypeVar("T")

_log = logging.getLogger(__name__)
_START_S = 120
# Imported once, by the process that all workers are forked from: a worker that takes the place
# of another is warm in the time that a fork takes.
_PRELOADED = [begin.__module__, "backtest_pipeline.service.warm"]


@dataclass(frozen=True)
class Work:
    """What a worker is to do: a spec as JSON, and the caller's name."""

    spec: str
    user: str
    slow: bool = False


class Pool:
    """Workers, and those who wait for one."""

    def __init__(self, settings: Settings, size: int, timeout_s: float, most_waiting: int) -> None:
        self._settings, self.size = settings, size
        self._timeout_s, self._most_waiting = timeout_s, most_waiting
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._workers = [_Worker(settings, self._context) for _ in range(size)]
        self._slow = asyncio.Semaphore(max(1, size - 1))
        self._tasks: set[asyncio.Task[None]] = set()
        self.inside = 0

    @property
    def waiting(self) -> int:
        """Requests that have no worker yet."""
        return max(0, self.inside - self.size)

    async def start(self) -> None:
        """Start all workers and let each compute something, so that no request meets a cold one.

        Raises:
            RuntimeError: where a worker does not come up.
        """
        async with asyncio.timeout(_START_S), asyncio.TaskGroup() as group:
            for one in self._workers:
                group.create_task(one.warmed())
        for one in self._workers:
            self._idle.put_nowait(one)

    async def close(self) -> None:
        """End all workers, whatever they do."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(asyncio.to_thread(one.stop) for one in self._workers))

    async def execute(self, work: Work) -> bytes:
        """The result of a spec, as JSON.

        Raises:
            Problem: RATE_LIMITED where too many wait already, RUN_TIMEOUT where it took too long,
                RUN_ENGINE_ERROR where its worker died, or what the computation says is wrong.
        """
        if self.inside >= self.size + self._most_waiting:
            raise Problem(
                "RATE_LIMITED",
                f"{self._most_waiting} requests wait for a worker already; submit it as a job, or"
                " try again",
                {"Retry-After": "5"},
            )
        self.inside += 1
        try:
            async with self._turn(work.slow) as one:
                found = await self._executed(one, work)
        finally:
            self.inside -= 1
        if isinstance(found, Failure):
            raise found.problem()
        return found

    async def _executed(self, one: _Worker, work: Work) -> bytes | Failure:
        try:
            return await one.execute(work, self._timeout_s)
        except TimeoutError as error:
            raise Problem(
                "RUN_TIMEOUT",
                f"it took more than {self._timeout_s:g} s; submit it to /backtest/jobs",
            ) from error
        except (ProcessExpired, BrokenProcessPool) as error:
            _log.error("the worker died: %s", error)
            raise Problem("RUN_ENGINE_ERROR", "the process that computed it died") from error

    @asynccontextmanager
    async def _turn(self, slow: bool) -> AsyncIterator[_Worker]:
        if slow:
            await self._slow.acquire()
        try:
            one = await self._idle.get()
            try:
                yield one
            except BaseException:
                self._later(one)
                raise
            self._idle.put_nowait(one)
        finally:
            if slow:
                self._slow.release()

    def _later(self, one: _Worker) -> None:
        """Give a worker that may have died back when it answers again."""
        task = asyncio.create_task(self._back_when_warm(one))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _back_when_warm(self, one: _Worker) -> None:
        try:
            await one.warmed()
        except (RuntimeError, TimeoutError):
            _log.exception("a worker did not come back at once")
        self._idle.put_nowait(one)


class _Worker:
    """One process, and another one where it has died."""

    def __init__(
        self, settings: Settings, context: multiprocessing.context.ForkServerContext
    ) -> None:
        self._settings, self._context = settings, context
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(1, initializer=begin, initargs=(self._settings,), context=self._context)

    async def execute(self, work: Work, timeout_s: float) -> bytes | Failure:
        """What the process computes; raises as the future of a `pebble.ProcessPool`."""
        given = (work.spec, work.user, request_id.get())
        try:
            return await asyncio.wrap_future(self._schedule(execute_json, given, timeout_s))
        except BrokenProcessPool:
            # It died while it had nothing to do, so that this work was not begun.
            await asyncio.to_thread(self._replace)
            return await asyncio.wrap_future(self._schedule(execute_json, given, timeout_s))

    async def warmed(self) -> None:
        """Return when the process can compute at once.

        Raises:
            RuntimeError: where it does not come up.
        """
        for last in (False, True):
            try:
                await asyncio.wrap_future(self._schedule(warm, (), _START_S))
            except (ProcessExpired, BrokenProcessPool) as error:
                if last:
                    raise RuntimeError("a worker process does not come up") from error
                await asyncio.to_thread(self._replace)
            else:
                return

    def stop(self) -> None:
        self._pool.stop()
        self._pool.join()

    def _schedule(
        self, function: Callable[..., T], arguments: Sequence[Any], timeout_s: float
    ) -> ProcessFuture[T]:
        try:
            return self._pool.schedule(function, arguments, timeout=timeout_s)
        except RuntimeError as error:  # the pool found out before that it is broken
            raise BrokenProcessPool(str(error)) from error

    def _replace(self) -> None:
        self.stop()
        self._pool = self._new_pool()
