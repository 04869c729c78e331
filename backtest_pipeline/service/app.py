"""The FastAPI application: its lifespan, routes and middleware."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version
from threading import Event

import anyio
import anyio.to_thread
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from backtest_pipeline.market.errors import AlreadyRunning
from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline.service.auth.authentication import Authenticator, MetricsReader
from backtest_pipeline.service.description import openapi_schema
from backtest_pipeline.service.job_events import JobEvents
from backtest_pipeline.service.metrics_endpoint import Metrics, MetricsMiddleware
from backtest_pipeline.service.middleware import RequestMiddleware
from backtest_pipeline.service.pool import Pool
from backtest_pipeline.service.problem_handlers import install_problem_handlers
from backtest_pipeline.service.routes import routers
from backtest_pipeline.service.settings import ServiceSettings, load_service_settings
from backtest_pipeline.service.warm_pages import warm_pages
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.session_lock import SERVICE_LOCK, SessionLock
from backtest_pipeline.storage.settings import Settings, load_settings

_log = logging.getLogger(__name__)
# A handler, or a look-up of a stored result, holds one connection at a time; the store's pool has
# this many in all.
_HANDLERS, _LOOK_UPS = 10, 2
_KEEP_S = 10.0
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def _presence(database: Database) -> SessionLock:
    """A sign that a service runs on the store, for whoever needs the store for itself."""
    advice = "a restore is under way: wait for its end, then start the service"
    return SessionLock(database, SERVICE_LOCK, advice=advice, shared=True)


async def _keep(lock: SessionLock) -> None:
    while True:
        await anyio.sleep(_KEEP_S)
        try:
            await anyio.to_thread.run_sync(lock.keep)
        except AlreadyRunning as error:
            _log.error("the store was taken from this service: %s", error)


async def _warm() -> None:
    await anyio.to_thread.run_sync(warm_pages, abandon_on_cancel=True)


def build_app(settings: Settings | None = None, service: ServiceSettings | None = None) -> FastAPI:
    """The application; its lifespan opens and closes the store and the workers.

    Args:
        settings: settings of the store; None reads the environment.
        service: settings of the service; None reads the environment.
    """
    settings = settings or load_settings()
    service = service or load_service_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _HANDLERS
        app.state.look_ups = anyio.CapacityLimiter(_LOOK_UPS)
        with ExitStack() as opened:
            workspace = await anyio.to_thread.run_sync(
                opened.enter_context, open_workspace(settings)
            )
            lock = await anyio.to_thread.run_sync(_presence, workspace.database)
            opened.callback(lock.release)
            pool = Pool(
                settings, service.workers, service.service_timeout_s, service.service_waiting
            )
            try:
                await pool.start()
                app.state.workspace, app.state.pool = workspace, pool
                app.state.authenticator = Authenticator(service, workspace.database)
                app.state.job_events = JobEvents(workspace, app.state.stopping)
                _log.info("ready: %s workers are warm", pool.size)
                async with anyio.create_task_group() as group:
                    group.start_soon(_keep, lock)
                    group.start_soon(_warm)
                    yield
                    group.cancel_scope.cancel()
            finally:
                await pool.close()

    app = FastAPI(
        title="backtest_pipeline",
        version=version("backtest-pipeline"),
        summary="Trusted backtests over HTTP.",
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from a CDN, which would run with the reader's
        # key.
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings, app.state.service = settings, service
    app.state.stopping = Event()
    app.openapi = lambda: openapi_schema(app)
    install_problem_handlers(app)
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
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    # Without authentication, check the Host header against DNS rebinding.
    app.add_middleware(
        RequestMiddleware,
        most_bytes=service.service_body_bytes,
        body_s=service.service_request_s,
        hosts=_LOCAL_NAMES if service.service_auth == "off" else (),
    )
    return app
