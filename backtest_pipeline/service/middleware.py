"""Outermost middleware: request ids, security headers, limits of bodies and unexpected errors.

An error that nothing below handles becomes a problem here: it is logged once with its traceback,
and the client sees only the request id.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backtest_pipeline.service.problems import Problem, failure_of, problem_response
from backtest_pipeline.storage.logs import about

REQUEST_ID = "X-Request-ID"

_log = logging.getLogger(__name__)
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, most_bytes: int, body_s: float, hosts: Sequence[str] = ()
    ) -> None:
        """Wrap an application.

        Args:
            app: the application.
            most_bytes: longest body, whatever its Content-Length says.
            body_s: seconds in which a body must arrive.
            hosts: allowed names in the Host header; empty allows any.
        """
        self._app, self._hosts = app, frozenset(hosts)
        self._most_bytes, self._body_s = most_bytes, body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        one = _Request(scope, receive, send, self._most_bytes, self._body_s)
        with about(request=one.identity):
            try:
                if self._hosts and _host(one.headers.get("host", "")) not in self._hosts:
                    raise Problem("FORBIDDEN", "without authentication, use the host localhost")
                one.require_announced_length()
                await self._app(scope, one.receive, one.send)
            except Exception as error:
                failure = failure_of(error)
                if failure.raised != Problem.__name__:
                    _log.exception("%s failed", one.line)
                if one.status:
                    raise  # the connection ends: a partial response must not look complete
                response = problem_response(failure.problem(), scope["path"], one.identity)
                await response(scope, receive, one.send)
            finally:
                one.log()


class _Request:
    """One request: its id, its response headers and its log line."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, most_bytes: int, body_s: float
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._most_bytes, self._received = most_bytes, 0
        self._body_s, self._is_whole = body_s, False
        self._since, self.status = time.perf_counter(), 0
        self.headers = Headers(scope=scope)
        given = self.headers.get(REQUEST_ID, "")
        self.identity = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        self._added: dict[str, str] = {}
        scope.setdefault("state", {}).update(request_id=self.identity, headers=self._added)

    @property
    def line(self) -> str:
        """Method and path as they were sent: a decoded path could hold lines of its own."""
        path = self._scope.get("raw_path") or self._scope["path"].encode()
        return f"{self._scope['method']} {path.decode('ascii', 'backslashreplace')}"

    def require_announced_length(self) -> None:
        """Raise a Problem if Content-Length is above the limit."""
        announced = self.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._most_bytes:
            raise Problem("PAYLOAD_TOO_LARGE", self._too_large)

    async def receive(self) -> Message:
        message = await (self._receive() if self._is_whole else self._part())
        self._received += len(message.get("body", b""))
        if self._received > self._most_bytes:
            raise HTTPException(413, self._too_large)
        return message

    async def _part(self) -> Message:
        """The next part of the body, or the client's leaving."""
        left_s = self._since + self._body_s - time.perf_counter()
        try:
            message = await asyncio.wait_for(self._receive(), max(left_s, 0))
        except TimeoutError:
            too_slow = f"the body did not arrive within {self._body_s:g} s"
            raise HTTPException(408, too_slow, {"Connection": "close"}) from None
        self._is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self.identity
            for name, value in {**_SECURITY_HEADERS, **self._added}.items():
                headers.setdefault(name, value)
        await self._send(message)

    def log(self) -> None:
        """Write the log line of the request."""
        took_ms = (time.perf_counter() - self._since) * 1e3
        user = self._scope["state"].get("user", "nobody")
        _log.info("%s %s for %s in %.0f ms", self.line, self.status, user, took_ms)

    @property
    def _too_large(self) -> str:
        return f"the body is longer than {self._most_bytes:,} bytes"


def _host(header: str) -> str:
    """The name in a Host header, without the port."""
    return header.rpartition("]")[0].lstrip("[") if "]" in header else header.partition(":")[0]
