"""The application: what is open while it runs, and which routes lead where."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version
from threading import Event

import anyio.to_thread
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline.service.authentication import Doorkeeper, MetricsReader
from backtest_pipeline.service.description import described
from backtest_pipeline.service.job_events import Watching
from backtest_pipeline.service.metrics_endpoint import Measured, Metrics
from backtest_pipeline.service.middleware import Requests
from backtest_pipeline.service.pool import Pool
from backtest_pipeline.service.problem_handlers import answer_with_problems
from backtest_pipeline.service.routes import routers
from backtest_pipeline.service.settings import ServiceSettings, load_service_settings
from backtest_pipeline.storage.settings import Settings, load_settings

_log = logging.getLogger(__name__)
# A handler holds one connection at a time, and so many the store's engine opens without waiting.
_THREADS = 12
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def build_app(settings: Settings | None = None, service: ServiceSettings | None = None) -> FastAPI:
    """The application, not yet open: its lifespan opens the store and the workers, and ends both.

    Args:
        settings: where the data lives; of the environment where None.
        service: how to serve; of the environment where None.
    """
    settings = settings or load_settings()
    service = service or load_service_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        with ExitStack() as opened:
            workspace = await anyio.to_thread.run_sync(
                opened.enter_context, open_workspace(settings)
            )
            pool = Pool(
                settings, service.workers, service.service_timeout_s, service.service_waiting
            )
            try:
                await pool.start()
                app.state.workspace, app.state.pool = workspace, pool
                app.state.doorkeeper = Doorkeeper(service, workspace.database)
                app.state.watching = Watching(workspace, app.state.stopping)
                _log.info("ready: %s workers are warm", pool.size)
                yield
            finally:
                await pool.close()

    app = FastAPI(
        title="backtest_pipeline",
        version=version("backtest-pipeline"),
        summary="Trusted backtests over HTTP.",
        lifespan=lifespan,
        # The pages that explore an API load their scripts from elsewhere, and would run them with
        # the reader's key.
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings, app.state.service = settings, service
    app.state.stopping = Event()
    app.openapi = lambda: described(app)
    answer_with_problems(app)
    for router in routers():
        app.include_router(router)
    metrics = Metrics(lambda: app.state.workspace, lambda: app.state.pool)
    app.include_router(metrics.router, dependencies=[MetricsReader])
    if service.service_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.service_cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "RateLimit", "RateLimit-Policy", "Retry-After"],
        )
    app.add_middleware(Measured, metrics=metrics)
    # Without keys, a page that calls itself localhost (DNS rebinding) must not get in either.
    app.add_middleware(
        Requests,
        most_bytes=service.service_body_bytes,
        hosts=_LOCAL_NAMES if service.service_auth == "off" else (),
    )
    return app
