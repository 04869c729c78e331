"""Warm worker processes on this host, forked from one process that has imported everything.

Each worker is a pool of one process: one that dies, or is ended, takes its own piece of work along
and no other. It is replaced at once.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.context
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeVar, cast

import psutil
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from backtest_pipeline.market.errors import (
    ConfigurationError,
    PoolUnavailable,
    WorkerLost,
    WorkGivenUp,
)
from backtest_pipeline.pipeline.pools.pool_process import (
    PRELOADED,
    Order,
    begin_with_parent,
    call,
    warm,
)
from backtest_pipeline.pipeline.pools.work_pool import PoolWork
from backtest_pipeline.storage.settings import Settings

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

START_S = 600.0
"""How long a worker may take to start: on its first start, an installation compiles the code."""
ATTEMPTS = 3
"""How many workers may die with a piece of work before it is given up."""
_LOOK_S = 5.0
"""How often a worker at work is looked at."""

_log = logging.getLogger(__name__)


def forked_from(modules: Sequence[str]) -> multiprocessing.context.ForkServerContext:
    """A way to start processes: forked from one that has imported these modules."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


class WorkerProcess:
    """One worker process, replaced when it dies."""

    def __init__(
        self,
        settings: Settings,
        context: multiprocessing.context.ForkServerContext,
        initializer: Callable[[Settings], None] = begin_with_parent,
    ) -> None:
        self._settings, self._context, self._initializer = settings, context, initializer
        self._pool = self._new_pool()
        self.pid: int | None = None
        """Of the process, for whoever warms it up; None until then."""

    def schedule(
        self, function: Callable[..., T], arguments: Sequence[Any], timeout_s: float | None = None
    ) -> ProcessFuture[T]:
        """Have the process call a function; cancelling the future ends the process.

        Raises:
            BrokenProcessPool: where the process is dead and has not been replaced.
        """
        try:
            return self._pool.schedule(function, arguments, timeout=timeout_s)
        except RuntimeError as error:  # the pool already knows that it is broken
            raise BrokenProcessPool(str(error)) from error

    @property
    def is_warm(self) -> bool:
        """Whether the process that was warmed up is still there."""
        return self.pid is not None and psutil.pid_exists(self.pid)

    def replace(self) -> None:
        """End the process, and start another on the next call."""
        self.stop()
        self._pool, self.pid = self._new_pool(), None

    def stop(self) -> None:
        """End the process, busy or not."""
        self._pool.stop()
        self._pool.join()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            1, initializer=self._initializer, initargs=(self._settings,), context=self._context
        )


class Processes:
    """Worker processes, started when there is the first work for them."""

    is_here = False

    def __init__(self, settings: Settings, size: int) -> None:
        """Starts nothing yet.

        Raises:
            ConfigurationError: in a process that is being started as a worker, which imports the
                script that opened the pool.
        """
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise ConfigurationError(
                "worker processes import the script that starts them, and this one starts its "
                'work as it is imported: put what it does below `if __name__ == "__main__":`'
            )
        self.size = self.most_threads = size
        self._settings = settings
        self._lock = Lock()
        self._workers: list[WorkerProcess] = []
        self._idle: SimpleQueue[WorkerProcess] = SimpleQueue()
        self._busy: set[Future[Any]] = set()
        self._abandonments = 0

    def do(self, work: PoolWork[A, R], item: A) -> R:
        if work.elsewhere is None:
            return work.here(item)
        begun_at = self._abandonments
        idle = self._started()
        order = Order.of(work.elsewhere, item)
        worker = idle.get()
        try:
            for _ in range(ATTEMPTS):
                try:
                    self._warmed(worker, begun_at)
                    return cast(R, self._answer(worker, begun_at, call, (order,)))
                except (ProcessExpired, BrokenProcessPool) as error:
                    _log.warning("%s: a worker process died: %s", work.name, error)
                    worker.replace()
        except CancelledError as error:
            worker.replace()
            raise WorkGivenUp(f"{work.name}: the run was ended before it was done") from error
        finally:
            idle.put(worker)
        raise WorkerLost(
            f"{work.name}: {ATTEMPTS} worker processes died of it, one after the other; the system "
            "log says whether they ran out of memory, and fewer BACKTEST_POOL_WORKERS need less"
        )

    def abandon(self) -> None:
        with self._lock:
            self._abandonments += 1
            busy = list(self._busy)
        for future in busy:
            future.cancel()

    def close(self) -> None:
        self.abandon()
        with self._lock:
            workers, self._workers, self._idle = self._workers, [], SimpleQueue()
        for worker in workers:
            worker.stop()

    def _started(self) -> SimpleQueue[WorkerProcess]:
        """The workers that have nothing to do; of those that are there now, until `close`."""
        with self._lock:
            if not self._workers:
                context = forked_from(PRELOADED)
                self._workers = [WorkerProcess(self._settings, context) for _ in range(self.size)]
                for worker in self._workers:
                    self._idle.put(worker)
            return self._idle

    def _warmed(self, worker: WorkerProcess, begun_at: int) -> None:
        """Start the worker if it is not there; one that dies meanwhile says nothing of the work."""
        retry_s, died = self._settings.store_retry_s, None
        for _ in range(ATTEMPTS):
            if worker.is_warm:
                return
            try:
                worker.pid = self._answer(worker, begun_at, warm, (retry_s,), START_S + retry_s)
            except (ProcessExpired, BrokenProcessPool, TimeoutError) as error:
                died = error
                worker.replace()
        if not worker.is_warm:
            raise PoolUnavailable(
                f"a worker process of this host does not start ({died}); what it wrote to stderr "
                "says why"
            ) from died

    def _answer(
        self,
        worker: WorkerProcess,
        begun_at: int,
        function: Callable[..., T],
        arguments: Sequence[Any],
        timeout_s: float | None = None,
    ) -> T:
        future = worker.schedule(function, arguments, timeout_s)
        with self._lock:
            self._busy.add(future)
            if self._abandonments > begun_at:
                future.cancel()
        try:
            # One that exits with status 0 in the middle of its work is not missed by its pool.
            while not wait([future], _LOOK_S).done:
                if worker.pid is not None and not worker.is_warm:
                    raise ProcessExpired("ended by itself", code=0, pid=worker.pid)
            return future.result()
        finally:
            with self._lock:
                self._busy.discard(future)
