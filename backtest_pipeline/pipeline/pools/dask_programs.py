"""How scheduler and workers of a cluster are started, and whether they are there."""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.pipeline.pools import dask_scheduler
from backtest_pipeline.pipeline.pools.configured_pool import require_dask, workers_of
from backtest_pipeline.pipeline.pools.environment import PRELOAD
from backtest_pipeline.pipeline.pools.tls import environment_of
from backtest_pipeline.storage.settings import Settings, is_loopback, load_settings

_CONFIGURED = {
    # Pages for health checks alone: whoever reaches the others over HTTP reads what runs where.
    "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": "['distributed.http.health']",
    "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": (
        "['distributed.http.health', 'backtest_pipeline.pipeline.pools.worker_health']"
    ),
    # It looks at each thread a hundred times a second, and nobody looks at what it finds.
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}

Program = tuple[list[str], dict[str, str]]
"""A command, and what it has in its environment beside that of its parent."""


def scheduler_program(host: str, port: int, health_port: int = 0) -> Program:
    """The scheduler; with TLS unless it can be reached from this host alone.

    Args:
        host: where it listens.
        port: where it listens.
        health_port: where this host may ask for `/health`; 0 for any that is free.

    Raises:
        ConfigurationError: for another address without certificates.
    """
    require_dask("pool scheduler")
    settings = load_settings()
    secure = settings.pool_tls is not None
    if not secure and not is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached from other hosts, and without TLS whoever reaches it can run "
            "code on the workers: set BACKTEST_POOL_TLS, or listen at 127.0.0.1"
        )
    protocol = "tls" if secure else "tcp"
    command = [
        *_dask("scheduler"),
        *("--host", host, "--port", str(port), "--protocol", protocol),
        *_health_at(health_port),
        *("--preload", dask_scheduler.__name__),
    ]
    return command, _configured() | environment_of(f"{protocol}://", settings.pool_tls)


def worker_program(health_port: int = 0) -> Program:
    """As many workers as this host has cores, or as the settings say.

    Args:
        health_port: where this host may ask the first of them for `/ready`; 0 for any that is free.

    Raises:
        ConfigurationError: where no scheduler is configured.
    """
    settings = _of_a_cluster("worker")
    n_workers = workers_of(settings)
    address = urlsplit(settings.pool_address)
    # Without TLS the scheduler is on this host, and so nobody else need reach the workers.
    host = [] if address.scheme == "tls" else ["--host", address.hostname or "127.0.0.1"]
    command = [
        *_dask("worker"),
        settings.pool_address,
        *("--nworkers", str(n_workers), "--nthreads", "1"),
        *_health_at(health_port),
        *host,
        # Its share of what this host or container has; Dask would divide by the host's cores.
        *("--memory-limit", f"{1 / n_workers:.4f}"),
        *("--preload", PRELOAD),
        *("--protocol", address.scheme),
    ]
    tls = environment_of(settings.pool_address, settings.pool_tls)
    return command, _configured() | tls


def workers_there() -> str:
    """A sentence on the workers that could do the work of this process.

    Raises:
        PoolUnavailable: where there are none.
        ConfigurationError: where they know other strategies than this process.
    """
    settings = _of_a_cluster("status").model_copy(update={"store_retry_s": 0})
    from backtest_pipeline.pipeline.pools.cluster import Cluster
    from backtest_pipeline.pipeline.workspace import use_strategies
    from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore

    use_strategies(settings)
    cluster = Cluster(settings, ArtifactStore.of(settings).root_id)
    try:
        size = cluster.size
        cluster.require_strategies()
        return f"{settings.pool_address}: {size} workers of this code and store"
    finally:
        cluster.close()


def _configured() -> dict[str, str]:
    """Settings of Dask that its user has not given."""
    return {name: value for name, value in _CONFIGURED.items() if name not in os.environ}


def _of_a_cluster(command: str) -> Settings:
    require_dask(f"pool {command}")
    settings = load_settings()
    if not settings.pool_address:
        raise ConfigurationError(
            "BACKTEST_POOL_ADDRESS is not set; give it the scheduler's address, such as "
            "tls://scheduler:8786"
        )
    if settings.pool_tls is not None and urlsplit(settings.pool_address).scheme == "tcp":
        raise ConfigurationError(
            f"BACKTEST_POOL_ADDRESS is {settings.pool_address}, but with BACKTEST_POOL_TLS the "
            "scheduler listens at tls://: write tls://, or unset BACKTEST_POOL_TLS for all"
        )
    return settings


def _health_at(port: int) -> tuple[str, ...]:
    """Arguments for the HTTP server of a program: Dask starts one even without a dashboard."""
    return ("--no-dashboard", "--dashboard-address", f"127.0.0.1:{port}")


def _dask(program: str) -> list[str]:
    return [sys.executable, "-m", f"distributed.cli.dask_{program}"]
