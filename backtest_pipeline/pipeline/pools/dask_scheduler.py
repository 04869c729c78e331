"""Preload module of a Dask scheduler: refuses workers of other code or packages than its own."""

from __future__ import annotations

import logging
from time import time
from typing import TYPE_CHECKING, Any

from backtest_pipeline.pipeline.pools.environment import (
    ANNOUNCED,
    PRELOAD,
    code_and_packages,
    differing,
)

if TYPE_CHECKING:
    from distributed import Scheduler
    from distributed.comm.core import Comm

_REGISTER = "register-worker"
_log = logging.getLogger(__name__)


def dask_setup(scheduler: Scheduler) -> None:
    """Have the scheduler look at each worker before it registers."""
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
