"""What every request has: an id, headers that keep browsers careful, and an answer.

This is the outermost part of the application: an error that nothing below understood becomes a
problem here, is logged once with its traceback, and tells the client nothing but its request id.
"""

from __future__ import annotations

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
_CAREFUL = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Requests:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, most_bytes: int, hosts: Sequence[str] = ()) -> None:
        """Around an application.

        Args:
            app: it.
            most_bytes: of a body; one that is longer is refused, also where it does not say so.
            hosts: names that a request may call this machine; any where there are none.
        """
        self._app, self._most_bytes, self._hosts = app, most_bytes, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        one = _Request(scope, receive, send, self._most_bytes)
        with about(request=one.identity):
            try:
                if self._hosts and _host(one.headers.get("host", "")) not in self._hosts:
                    raise Problem("FORBIDDEN", "this service answers to the name localhost alone")
                one.require_announced_length()
                await self._app(scope, one.receive, one.send)
            except Exception as error:
                failure = failure_of(error)
                if failure.raised != Problem.__name__:
                    _log.exception("%s was not answered", one.line)
                if one.status:
                    raise  # the connection ends: half an answer must not look like a whole one
                refused = problem_response(failure.problem(), scope["path"], one.identity)
                await refused(scope, receive, one.send)
            finally:
                one.tell()


class _Request:
    """One request: its id and how far it is."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most_bytes: int) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._most_bytes, self._received = most_bytes, 0
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
        """Raises a Problem for a body that says itself that it is too long."""
        announced = self.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._most_bytes:
            raise Problem("PAYLOAD_TOO_LARGE", self._too_large)

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._most_bytes:
            raise HTTPException(413, self._too_large)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            found = MutableHeaders(scope=message)
            found[REQUEST_ID] = self.identity
            for name, value in {**_CAREFUL, **self._added}.items():
                found.setdefault(name, value)
        await self._send(message)

    def tell(self) -> None:
        """One line of the log."""
        took_ms = (time.perf_counter() - self._since) * 1e3
        user = self._scope["state"].get("user", "nobody")
        _log.info("%s %s for %s in %.0f ms", self.line, self.status, user, took_ms)

    @property
    def _too_large(self) -> str:
        return f"a body has {self._most_bytes:,} bytes at most"


def _host(header: str) -> str:
    """The name in a Host header, without the port."""
    return header.rpartition("]")[0].lstrip("[") if "]" in header else header.partition(":")[0]
