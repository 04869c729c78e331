"""The server process: uvicorn with a graceful stop."""

from __future__ import annotations

import logging
import signal
from socket import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from backtest_pipeline.service.app import build_app
from backtest_pipeline.service.connections import (
    most_connections,
    protocol_with,
    raise_descriptors,
)
from backtest_pipeline.service.settings import ServiceSettings
from backtest_pipeline.storage.logs import set_up_logging
from backtest_pipeline.storage.settings import Settings

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server that ends its event streams when it stops, because nothing else ends them."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():  # uvicorn names the addresses of its own sockets only
            host, port = listening.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            _log.info("running on http://%s:%d (Ctrl-C or SIGTERM stops it)", host, port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not the parent's handler: it raises the signal again at the end and would kill the process
        # before it has closed what it opened.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self._app.state.stopping.set()


def serve(settings: Settings, service: ServiceSettings, listening: socket) -> None:
    """Serve until SIGTERM or SIGINT; then finish running requests and exit.

    Args:
        settings: settings of the store.
        service: settings of the service.
        listening: a socket that listens at the service's address.

    Raises:
        BacktestError: if the store cannot be opened.
    """
    set_up_logging("json", logging.INFO)
    app = build_app(settings, service)
    Server(app, config_of(app, service)).run([listening])


def config_of(app: ASGIApp, service: ServiceSettings) -> uvicorn.Config:
    """The configuration of the server, with its limits; raises that of file descriptors."""
    descriptors = raise_descriptors()
    return uvicorn.Config(
        app,
        http=protocol_with(service.service_request_s),
        limit_concurrency=most_connections(service.service_connections, descriptors),
        log_config=None,
        access_log=False,  # `service.middleware` logs each request, with its id and user
        server_header=False,
        proxy_headers=bool(service.service_trusted_proxies),
        forwarded_allow_ips=list(service.service_trusted_proxies),
        timeout_graceful_shutdown=service.service_grace_s,
    )
