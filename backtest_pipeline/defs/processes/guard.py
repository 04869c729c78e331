"""A guard before the Dagster UI, which by itself obeys every page of every site that finds it.

Only a browser that has shown the token gets in, only from the UI's own pages, and only in the way
that the UI itself asks: pages by GET, GraphQL by POST as JSON or over its websocket.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.storage.settings import Settings

_GRAPHQL = "/graphql"
_TOKEN = "token"  # noqa: S105  (the name of the query's parameter)
_COOKIE_S = 30 * 86_400
_POLICY_VIOLATION = 1008
_LOG_IN = (
    "This browser has not shown the token of the Dagster UI. Open the address that "
    "`backtest-pipeline up` printed once; it ends in ?token=..."
)
Refusal = tuple[HTTPStatus, str]


def token_file(settings: Settings) -> Path:
    """The file with the token of a store's Dagster UI."""
    return settings.home / "dagster" / "ui-token"


def read_token(path: Path) -> str:
    """The token in a file that only its owner can read; made if there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Processes of several containers may have one number.
        whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        whole.touch(mode=0o600)
        whole.write_text(secrets.token_urlsafe(32))
        whole.replace(path)
    token = path.read_text().strip()
    if not token:
        raise ConfigurationError(f"{path} has no token; delete it, and another one is made")
    return token


class Guard:
    """ASGI middleware that lets requests of the UI's own pages through, and refuses all others."""

    def __init__(
        self, app: ASGIApp, token: str, names: Collection[str], *, by_any_address: bool
    ) -> None:
        """Guard an app.

        Args:
            app: the app to guard.
            token: what a browser has to show.
            names: host names that the UI is reached by, besides those of this machine's loopback.
            by_any_address: whether it is reached by any IP address, too. No site can have its name
                mean such an address afterwards, as it can with a name.
        """
        self._app, self._token = app, token
        self._names = {"localhost", *(name.lower() for name in names)}
        self._by_any_address = by_any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        refusal = self._foreign(request)
        if refusal is None and self._brings_token(request):
            await self._let_in(request)(scope, receive, send)
            return
        refusal = refusal or self._unknown(request) or _unusual(scope, request)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            status, reason = refusal
            await PlainTextResponse(f"{reason}\n", status)(scope, receive, send)

    def _foreign(self, request: HTTPConnection) -> Refusal | None:
        """Why a request does not come from a page of this UI; None if it does."""
        host = request.headers.get("host", "")
        if not self._is_ours(host):
            return HTTPStatus.MISDIRECTED_REQUEST, (
                f"The Dagster UI does not go by the name {host!r}; if it should, start it with "
                "`backtest-pipeline up --names`"
            )
        origins = request.headers.getlist("origin")
        if any(origin.partition("://")[2].lower() != host.lower() for origin in origins):
            return HTTPStatus.FORBIDDEN, "A page of another site may not use the Dagster UI"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name, _ = _name_and_port(host)
        except ValueError:
            return False
        try:
            address = ip_address(name)
        except ValueError:
            return name in self._names
        return self._by_any_address or address.is_loopback

    def _brings_token(self, request: HTTPConnection) -> bool:
        """Whether the address has the token, as the one that the command prints."""
        is_page = request.scope["type"] == "http" and request.scope["method"] == "GET"
        return is_page and self._is_token(request.query_params.get(_TOKEN))

    def _let_in(self, request: HTTPConnection) -> RedirectResponse:
        """To the same page without the token, which a browser would keep in its history."""
        page = request.url.remove_query_params(_TOKEN)
        to = f"/{page.path.lstrip('/')}" + (f"?{page.query}" if page.query else "")
        response = RedirectResponse(to, HTTPStatus.SEE_OTHER)
        response.set_cookie(
            _cookie(request), self._token, max_age=_COOKIE_S, httponly=True, samesite="lax"
        )
        return response

    def _unknown(self, request: HTTPConnection) -> Refusal | None:
        """Why a request is not let in: it has the token in neither cookie nor header."""
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        is_known = self._is_token(request.cookies.get(_cookie(request))) or (
            scheme.lower() == "bearer" and self._is_token(bearer)
        )
        return None if is_known else (HTTPStatus.FORBIDDEN, _LOG_IN)

    def _is_token(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self._token.encode())


def _name_and_port(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    return parts.hostname or "", parts.port or 80


def _cookie(request: HTTPConnection) -> str:
    """The cookie's name; a browser sends cookies to all ports of a host."""
    _, port = _name_and_port(request.headers["host"])
    return f"backtest_ui_{port}"


def _unusual(scope: Scope, request: HTTPConnection) -> Refusal | None:
    """Why the UI itself would not ask so."""
    is_graphql = scope["path"] == _GRAPHQL
    if scope["type"] == "websocket":
        return None if is_graphql else (HTTPStatus.NOT_FOUND, "There is nothing here")
    if scope["method"] in ("GET", "HEAD") and not is_graphql:
        return None
    if scope["method"] != "POST" or not is_graphql:
        return HTTPStatus.METHOD_NOT_ALLOWED, (
            "The Dagster UI reads pages by GET and sends GraphQL by POST to /graphql; all else is "
            "closed"
        )
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send GraphQL as application/json"
    return None
