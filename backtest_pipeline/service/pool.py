"""Warm worker processes for synchronous computations.

Each worker is a separate pool of one process, so a crash or a timeout ends only the request that it
was computing. Requests wait in this process for their turn (`service.turns`). The work of a client
that hangs up is cancelled: its task is, which ends the process that computes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pebble import ProcessExpired

from backtest_pipeline.pipeline.pools.pool_process import PRELOADED, warm
from backtest_pipeline.pipeline.pools.processes import START_S, WorkerProcess, forked_from
from backtest_pipeline.service.pool_worker import WorkerTask, execute_json
from backtest_pipeline.service.problems import Failure, Problem
from backtest_pipeline.service.turns import Turns
from backtest_pipeline.storage.logs import request_id
from backtest_pipeline.storage.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Something for a worker: a spec as JSON, the user's name, and what to do with the spec."""

    spec: str
    user: str
    slow: bool = False
    task: WorkerTask = WorkerTask.EXECUTE


class Pool:
    """The workers, and the queue in front of them."""

    def __init__(self, settings: Settings, size: int, timeout_s: float, most_waiting: int) -> None:
        self.size, self._timeout_s = size, timeout_s
        in_service = settings.model_copy(update={"log_format": "json"})
        context = forked_from([*PRELOADED, execute_json.__module__])
        self._turns: Turns[_Worker] = Turns(size, most_waiting)
        self._workers = [_Worker(in_service, context) for _ in range(size)]
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """Requests that have a worker."""
        return self._turns.busy

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        return self._turns.waiting

    async def start(self) -> None:
        """Start all workers and warm them up.

        Raises:
            RuntimeError: if a worker does not start.
        """
        try:
            async with asyncio.timeout(START_S), asyncio.TaskGroup() as group:
                for one in self._workers:
                    group.create_task(one.warmed())
        except TimeoutError as error:
            raise RuntimeError(
                f"the workers were not ready within {START_S} s; the log says what they did, and "
                "a machine that is busy with other work needs longer: start the service again"
            ) from error
        self._turns.add(self._workers)

    async def close(self) -> None:
        """Stop all workers, busy or not."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(asyncio.to_thread(one.stop) for one in self._workers))

    async def execute(self, work: Work) -> bytes:
        """The result of a spec, as JSON; nothing of a check.

        Raises:
            Problem: RATE_LIMITED if too many of this user's wait, RUN_TIMEOUT if it took too long,
                RUN_ENGINE_ERROR if its worker died, or the error of the computation.
        """
        async with self._turn(work) as one:
            result = await self._executed(one, work)
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
    async def _turn(self, work: Work) -> AsyncIterator[_Worker]:
        one = await self._turns.take(work.user, slow=work.slow)
        try:
            yield one
        except BaseException:
            self._later(one)
            raise
        else:
            self._turns.add([one])
        finally:
            self._turns.done(slow=work.slow)

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
        self._turns.add([one])


class _Worker(WorkerProcess):
    """One worker process, replaced when it dies."""

    async def execute(self, work: Work, timeout_s: float) -> bytes | Failure:
        """The result of a computation; raises like the future of a `pebble.ProcessPool`."""
        arguments = (work.task, work.spec, work.user, request_id.get())
        try:
            return await asyncio.wrap_future(self.schedule(execute_json, arguments, timeout_s))
        except BrokenProcessPool:
            # It died while idle, so this work was not started.
            await asyncio.to_thread(self.replace)
            return await asyncio.wrap_future(self.schedule(execute_json, arguments, timeout_s))

    async def warmed(self) -> None:
        """Wait until the process is warm.

        Raises:
            RuntimeError: if it does not start.
        """
        for last in (False, True):
            try:
                await asyncio.wrap_future(self.schedule(warm, (), START_S))
            except (ProcessExpired, BrokenProcessPool) as error:
                if last:
                    raise RuntimeError("a worker process does not come up") from error
                await asyncio.to_thread(self.replace)
            else:
                return
