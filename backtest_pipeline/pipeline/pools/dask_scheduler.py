"""Preload module of a Dask scheduler: how it deals with workers.

It refuses those of other code or packages than its own, and those that die or do not answer are
given up as this project needs it, whether or not `backtest-pipeline pool scheduler` has started it.
"""

from __future__ import annotations

import logging
import os
from time import time
from typing import TYPE_CHECKING, Any

from backtest_pipeline.pipeline.pools.environment import (
    ANNOUNCED,
    PRELOAD,
    code_and_packages,
    differing,
)
from backtest_pipeline.storage.postgres.sessions import WORKER_TTL_S

if TYPE_CHECKING:
    from distributed import Scheduler
    from distributed.comm.core import Comm

ALLOWED_FAILURES = 2
"""How many workers may die with a piece of work before it is given up."""

_TTL_GIVEN = "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"
_FAILURES_GIVEN = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"
_REGISTER = "register-worker"
_log = logging.getLogger(__name__)


def dask_setup(scheduler: Scheduler) -> None:
    """Have the scheduler look at each worker before it registers, and give up those that are lost.

    What the environment says of Dask's `worker-ttl` and `allowed-failures` counts instead of ours.
    """
    if _FAILURES_GIVEN not in os.environ:
        scheduler.allowed_failures = ALLOWED_FAILURES
    if _TTL_GIVEN not in os.environ:
        _look_often(scheduler)
    ours, register = code_and_packages(), scheduler.handlers[_REGISTER]

    async def admitted(comm: Comm, *, address: str, extra: dict[str, Any], **about: Any) -> None:
        theirs = extra.get(ANNOUNCED)
        if theirs is None:
            why = f"it was not started with --preload {PRELOAD}"
        elif differs := differing(ours, theirs):
            why = f"{'; '.join(differs)}: give scheduler and workers the same image"
        else:
            await register(comm, address=address, extra=extra, **about)
            return
        message = f"the worker at {address} is refused: {why}"
        _log.error(message)
        await comm.write({"status": "error", "message": message, "time": time()})

    scheduler.handlers[_REGISTER] = admitted


def _look_often(scheduler: Scheduler) -> None:
    """Forget a worker that has not answered for WORKER_TTL_S, and look that often."""
    from tornado.ioloop import PeriodicCallback

    name = "worker-ttl"
    scheduler.worker_ttl = WORKER_TTL_S
    if name in scheduler.periodic_callbacks:
        scheduler.periodic_callbacks[name].stop()
    looking = PeriodicCallback(scheduler.check_worker_ttl, WORKER_TTL_S * 1_000)
    scheduler.periodic_callbacks[name] = looking
    looking.start()
