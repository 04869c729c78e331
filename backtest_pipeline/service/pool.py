"""Warm worker processes for synchronous computations.

Each worker is a separate pool of one process, so a crash or a timeout ends only the request that it
was computing. Requests queue in this process; more than `most_waiting` of them are refused. Slow
computations may not take the last worker, so that a quick one never waits for all of them.
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
# Imported once, by the process that all workers are forked from, so that a replacement worker is
# warm as soon as it is forked.
_PRELOADED = [begin.__module__, "backtest_pipeline.service.warm"]


@dataclass(frozen=True)
class Work:
    """A computation for a worker: a spec as JSON, and the user's name."""

    spec: str
    user: str
    slow: bool = False


class Pool:
    """The workers, and the queue in front of them."""

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
        """Requests that wait for a worker."""
        return max(0, self.inside - self.size)

    async def start(self) -> None:
        """Start all workers and warm them up.

        Raises:
            RuntimeError: if a worker does not start.
        """
        async with asyncio.timeout(_START_S), asyncio.TaskGroup() as group:
            for one in self._workers:
                group.create_task(one.warmed())
        for one in self._workers:
            self._idle.put_nowait(one)

    async def close(self) -> None:
        """Stop all workers, busy or not."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(asyncio.to_thread(one.stop) for one in self._workers))

    async def execute(self, work: Work) -> bytes:
        """The result of a spec, as JSON.

        Raises:
            Problem: RATE_LIMITED if the queue is full, RUN_TIMEOUT if it took too long,
                RUN_ENGINE_ERROR if its worker died, or the error of the computation.
        """
        if self.inside >= self.size + self._most_waiting:
            raise Problem(
                "RATE_LIMITED",
                f"{self._most_waiting} requests are already waiting for a worker; submit a job to "
                "/backtest/jobs, or try again",
                {"Retry-After": "5"},
            )
        self.inside += 1
        try:
            async with self._turn(work.slow) as one:
                result = await self._executed(one, work)
        finally:
            self.inside -= 1
        if isinstance(result, Failure):
            raise result.problem()
        return result

    async def _executed(self, one: _Worker, work: Work) -> bytes | Failure:
        try:
            return await one.execute(work, self._timeout_s)
        except TimeoutError as error:
            raise Problem(
                "RUN_TIMEOUT",
                f"it took more than {self._timeout_s:g} s; submit it as a job to /backtest/jobs",
            ) from error
        except (ProcessExpired, BrokenProcessPool) as error:
            _log.error("the worker died: %s", error)
            raise Problem("RUN_ENGINE_ERROR", "the worker process died; try again") from error

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
        """Return a worker that may have died to the pool once it is warm again."""
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
    """One worker process, replaced when it dies."""

    def __init__(
        self, settings: Settings, context: multiprocessing.context.ForkServerContext
    ) -> None:
        self._settings, self._context = settings, context
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(1, initializer=begin, initargs=(self._settings,), context=self._context)

    async def execute(self, work: Work, timeout_s: float) -> bytes | Failure:
        """The result of a computation; raises like the future of a `pebble.ProcessPool`."""
        arguments = (work.spec, work.user, request_id.get())
        try:
            return await asyncio.wrap_future(self._schedule(execute_json, arguments, timeout_s))
        except BrokenProcessPool:
            # It died while idle, so this work was not started.
            await asyncio.to_thread(self._replace)
            return await asyncio.wrap_future(self._schedule(execute_json, arguments, timeout_s))

    async def warmed(self) -> None:
        """Wait until the process is warm.

        Raises:
            RuntimeError: if it does not start.
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
        except RuntimeError as error:  # the pool already knows that it is broken
            raise BrokenProcessPool(str(error)) from error

    def _replace(self) -> None:
        self.stop()
        self._pool = self._new_pool()
