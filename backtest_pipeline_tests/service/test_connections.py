"""Connections that send nothing, or slowly, or are too many do not keep others out."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import uvicorn
from fastapi import FastAPI, Request

from backtest_pipeline.service.connections import (
    MOST_DESCRIPTORS,
    most_connections,
    raise_descriptors,
)
from backtest_pipeline.service.middleware import RequestMiddleware
from backtest_pipeline.service.problem_handlers import install_problem_handlers
from backtest_pipeline.service.server import config_of
from backtest_pipeline.service.settings import load_service_settings
from backtest_pipeline_tests.waiting import LIMIT_S, until


@contextmanager
def serving(request_s: float, connections: int = 100) -> Iterator[int]:
    """The port of a server with the service's limits around a route that reads its body."""
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    install_problem_handlers(app)
    app.add_middleware(RequestMiddleware, most_bytes=100, body_s=request_s)
    settings = load_service_settings(
        service_port=0, service_request_s=request_s, service_connections=connections
    )
    server = uvicorn.Server(config_of(app, settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def opened(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    connection.sendall(sent)
    return connection


def answered(connection: socket.socket) -> bytes:
    """All that is sent until the connection is closed."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
LAST = HEAD + b"Connection: close\r\n\r\nbody"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /echo HTTP/1.1\r\nHost: loc",
        HEAD + b"\r\nbody" + HEAD,  # a second request on the same connection
    ],
)
def test_headers_that_do_not_arrive_end_the_connection(sent: bytes) -> None:
    with serving(request_s=0.5) as port:
        response = answered(opened(port, sent))
        assert response.count(b"HTTP/1.1 200 OK") == sent.count(b"body")
        assert b" 200 OK" in answered(opened(port, LAST))


def test_headers_without_an_end_are_refused() -> None:
    with serving(request_s=LIMIT_S) as port, opened(port, HEAD) as connection:
        with suppress(OSError):  # it is closed while this goes on
            for _ in range(100):
                connection.sendall(b"X: " + b"a" * 20_000 + b"\r\n")
        with suppress(ConnectionResetError):
            assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")
        assert b" 200 OK" in answered(opened(port, LAST))


def test_a_body_that_does_not_arrive_is_a_problem() -> None:
    with serving(request_s=0.5) as port:
        head, _, body = answered(opened(port, HEAD + b"\r\nbo")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        problem = json.loads(body)
        assert (problem["code"], problem["status"]) == ("REQUEST_TIMEOUT", 408)
        assert problem["detail"] == "the body did not arrive within 0.5 s"


def test_more_connections_than_allowed_are_told_so() -> None:
    with serving(request_s=LIMIT_S, connections=3) as port:
        idle = [opened(port) for _ in range(3)]
        until(lambda: b" 503 " in answered(opened(port, LAST)))
        for connection in idle:
            connection.close()
        until(lambda: b" 200 OK" in answered(opened(port, LAST)))


def test_file_descriptors_are_raised_and_bound_connections() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        descriptors = raise_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == descriptors
        assert 512 < descriptors <= MOST_DESCRIPTORS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert most_connections(1_000, 65_536) == 1_000
    assert most_connections(1_000, 1_024) == 768
    assert most_connections(1_000, 100) == 1
