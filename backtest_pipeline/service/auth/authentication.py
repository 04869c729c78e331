"""Authentication and roles: our API keys, or tokens of an OpenID provider."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from backtest_pipeline.service.auth.oidc import OidcProvider
from backtest_pipeline.service.auth.rate_limits import RateLimiter
from backtest_pipeline.service.problems import Problem
from backtest_pipeline.service.settings import ServiceSettings
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.api_keys import PREFIX, Role, find_key

_SUBJECT = re.compile(r"[\x20-\x7e]{1,200}")
_bearer = HTTPBearer(
    auto_error=False, scheme_name="bearer", description="An API key, or an OpenID token."
)
_header = APIKeyHeader(
    name="X-API-Key", auto_error=False, scheme_name="api_key", description="An API key."
)


@dataclass(frozen=True)
class User:
    """The user of a request.

    Attributes:
        name: recorded with jobs and runs: the name of the key, `oidc:<sub>`, or `local`.
        role: a `viewer` reads; a `runner` also computes, and removes what is their own; an `admin`
            removes what is anybody's.
        counted_as: key of the rate limit.
        rate_per_minute: requests allowed per minute.
    """

    name: str
    role: Role
    counted_as: str
    rate_per_minute: int

    @property
    def removes_of(self) -> str | None:
        """The user whose runs, pins and jobs this one may remove; None for anybody's."""
        return None if self.role == "admin" else self.name


class Authenticator:
    """Authenticates requests and counts them against rate limits."""

    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._rates = RateLimiter(settings.service_failures_per_minute)
        self._provider = OidcProvider(settings) if settings.oidc_issuer else None

    def authenticate(self, request: Request, presented: str | None) -> User:
        """The user of a request, within their rate limit.

        Raises:
            Problem: UNAUTHORIZED, RATE_LIMITED, FORBIDDEN or IDENTITY_UNAVAILABLE.
        """
        address = request.client.host if request.client else ""
        user = self._user(presented, address)
        request.state.user = user.name
        request.state.headers.update(
            self._rates.count_request(user.counted_as, user.rate_per_minute)
        )
        return user

    def _user(self, presented: str | None, address: str) -> User:
        rate = self._settings.service_rate_per_minute
        if self._settings.service_auth == "off":
            return User("local", "admin", "local", rate)
        if not presented:
            raise _unauthorized("send an API key as Authorization: Bearer, or as X-API-Key")
        try:
            return self._of_key(presented) or self._of_token(presented, rate)
        except Problem as problem:
            if problem.code == "UNAUTHORIZED":
                # Only failures count: valid keys from the same address still work.
                self._rates.check_failures(address)
                self._rates.count_failure(address)
            raise

    def _of_key(self, presented: str) -> User | None:
        if not presented.startswith(PREFIX):
            return None
        with self._database.begin() as connection:
            key = find_key(connection, presented)
        if key is None:
            raise _unauthorized("this key is unknown, expired or revoked")
        return User(key.name, key.role, f"key:{key.key_id}", key.rate_per_minute)

    def _of_token(self, presented: str, rate: int) -> User:
        if self._provider is None:
            raise _unauthorized(f"this is not an API key: those begin with {PREFIX}")
        claims = self._provider.verify(presented)
        roles = self._provider.roles(claims)
        if not _SUBJECT.fullmatch(claims["sub"]):
            raise _unauthorized("the token's subject must be 1 to 200 printable ASCII characters")
        name = f"oidc:{claims['sub']}"
        names: dict[str, Role] = {
            self._settings.oidc_admin_role: "admin",
            self._settings.oidc_runner_role: "runner",
            self._settings.oidc_viewer_role: "viewer",
        }
        for theirs, role in names.items():
            if theirs in roles:
                return User(name, role, name, rate)
        raise Problem("FORBIDDEN", "the token has none of the roles viewer, runner and admin")


def _unauthorized(why: str) -> Problem:
    return Problem("UNAUTHORIZED", why, {"WWW-Authenticate": "Bearer"})


def _viewer(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    key: Annotated[str | None, Security(_header)],
) -> User:
    presented = bearer.credentials if bearer else key
    if bearer and key and bearer.credentials != key:
        raise _unauthorized("Authorization and X-API-Key differ; send only one of them")
    authenticator: Authenticator = request.app.state.authenticator
    return authenticator.authenticate(request, presented)


def _runner(user: Annotated[User, Depends(_viewer)]) -> User:
    if user.role == "viewer":
        raise Problem("FORBIDDEN", f"{user.name} is a viewer; this needs the role runner")
    return user


def _reads_metrics(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    key: Annotated[str | None, Security(_header)],
) -> None:
    """On loopback Prometheus needs no key; from elsewhere, or through a proxy, a token or a key."""
    service: ServiceSettings = request.app.state.service
    token = service.service_metrics_token
    # Not looked up in the store: metrics have to report when that is down.
    if token and bearer and _same(bearer.credentials, token.get_secret_value()):
        return
    forwarded = "forwarded" in request.headers or "x-forwarded-for" in request.headers
    if forwarded or not service.on_loopback:
        _viewer(request, bearer, key)


def _same(presented: str, expected: str) -> bool:
    return compare_digest(presented.encode(), expected.encode())


Viewer = Annotated[User, Depends(_viewer)]
Runner = Annotated[User, Depends(_runner)]
MetricsReader = Depends(_reads_metrics)
