"""Preload module of a Dask worker: `dask worker ADDRESS --nthreads 1 --preload <this module>`.

Before it registers, the worker opens its store, warms up, and says which code, packages and store
it has. Work asks for a worker by these, so that no other one gets it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from backtest_pipeline.market.errors import BacktestError, ConfigurationError
from backtest_pipeline.pipeline.pools import pool_process
from backtest_pipeline.pipeline.pools.environment import ANNOUNCED, name_of, surroundings
from backtest_pipeline.storage.settings import load_settings

if TYPE_CHECKING:
    from distributed import Worker

_log = logging.getLogger(__name__)


async def dask_setup(worker: Worker) -> None:
    """Make this worker one of ours.

    Where it has several threads, or its store cannot be opened, the process ends with one line in
    the log: Dask would log what is raised here, and have the worker register nevertheless.
    """
    try:
        await _begin(worker)
    except Exception as error:
        # One of ours says all in its message.
        trace = not isinstance(error, BacktestError)
        _log.error("this worker does not start: %s", error, exc_info=trace)
        logging.shutdown()
        os._exit(1)


async def _begin(worker: Worker) -> None:
    if worker.state.nthreads != 1:
        raise ConfigurationError(
            f"a worker does one piece of work at a time: start it with --nthreads 1, and more "
            f"workers instead of {worker.state.nthreads} threads"
        )
    settings = load_settings()
    pool_process.begin(settings)
    await asyncio.to_thread(pool_process.warm, settings.store_retry_s)
    store = pool_process.worker_store().workspace()
    known = surroundings(settings, store.artifacts.root_id())
    # They are sent when it registers, which comes next.
    worker.startup_information[ANNOUNCED] = lambda _worker: known
    worker.state.total_resources[name_of(known)] = 1
    worker.state.available_resources[name_of(known)] = 1


def dask_teardown(_worker: Worker) -> None:
    """Close the store."""
    pool_process.worker_store().close()
