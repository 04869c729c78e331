"""Where the settings have the work of a run done."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.pipeline.pools.work_pool import Threads, WorkPool
from backtest_pipeline.simulation.cores import usable_cores
from backtest_pipeline.storage.settings import Settings


def pool_of(settings: Settings, store_id: Callable[[], str | None]) -> WorkPool:
    """The pool that the settings configure; it starts and connects to nothing before there is work.

    Args:
        settings: the settings.
        store_id: reads what names the store, by which the workers of a cluster know it.

    Raises:
        ConfigurationError: for a cluster without the extra `dask`, or a script that would start
            itself again as a worker.
    """
    if settings.pool == "inline":
        return Threads(settings.pool_workers or Threads.size)
    if settings.pool == "processes":
        from backtest_pipeline.pipeline.pools.processes import Processes

        return Processes(settings, workers_of(settings))
    require_dask("BACKTEST_POOL=dask")
    from backtest_pipeline.pipeline.pools.cluster import Cluster

    return Cluster(settings, store_id)


def require_dask(wanted_by: str) -> None:
    """Raise ConfigurationError where the extra `dask` is not installed, which this needs."""
    if find_spec("distributed") is None:
        raise ConfigurationError(f"{wanted_by} needs Dask: pip install 'backtest-pipeline[dask]'")


def workers_of(settings: Settings) -> int:
    """How many worker processes a host has: as many as usable cores, unless the settings say."""
    return settings.pool_workers or usable_cores()
