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

    @property
    def _too_large(self) -> str:
        return f"a body has {self._most_bytes:,} bytes at most"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        identity = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        added: dict[str, str] = {}
        scope.setdefault("state", {}).update(request_id=identity, headers=added)
        status, since = 0, time.perf_counter()

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found = MutableHeaders(scope=message)
                found[REQUEST_ID] = identity
                for name, value in {**_CAREFUL, **added}.items():
                    found.setdefault(name, value)
            await send(message)

        received = 0

        async def received_in_bounds() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                raise HTTPException(413, self._too_large)
            return message

        with about(request=identity):
            try:
                if self._hosts and _host(headers.get("host", "")) not in self._hosts:
                    raise Problem("FORBIDDEN", "this service answers to the name localhost alone")
                announced = headers.get("content-length", "")
                if announced.isdecimal() and int(announced) > self._most_bytes:
                    raise Problem("PAYLOAD_TOO_LARGE", self._too_large)
                await self._app(scope, received_in_bounds, answered)
            except Exception as error:
                failure = failure_of(error)
                if failure.raised != Problem.__name__:
                    _log.exception("%s %s was not answered", scope["method"], scope["path"])
                if status:
                    raise  # the connection ends: half an answer must not look like a whole one
                refused = problem_response(failure.problem(), scope["path"], identity)
                await refused(scope, receive, answered)
            finally:
                _log.info(
                    "%s %s %s for %s in %.0f ms",
                    *(scope["method"], scope["path"], status, scope["state"].get("user", "nobody")),
                    (time.perf_counter() - since) * 1e3,
                )


def _host(header: str) -> str:
    """The name in a Host header, without the port."""
    return header.rpartition("]")[0].lstrip("[") if "]" in header else header.partition(":")[0]
