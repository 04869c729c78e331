"""Who asks, and whether they may: API keys of ours, or tokens of an OpenID provider."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from backtest_pipeline.service.oidc import Provider
from backtest_pipeline.service.problems import Problem
from backtest_pipeline.service.rate_limits import Rates
from backtest_pipeline.service.settings import ServiceSettings
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.api_keys import PREFIX, Role, find_key

_SUBJECT = re.compile(r"[\x20-\x7e]{1,200}")
_bearer = HTTPBearer(
    auto_error=False, scheme_name="bearer", description="An API key, or a token of the provider."
)
_header = APIKeyHeader(
    name="X-API-Key", auto_error=False, scheme_name="api_key", description="An API key."
)


@dataclass(frozen=True)
class User:
    """Who asks.

    Attributes:
        name: what jobs and runs remember: the name of the key, `oidc:<sub>`, or `local`.
        role: a `viewer` reads, a `runner` computes besides.
        counted_as: whose requests are counted together.
        rate_per_minute: requests that it may make.
    """

    name: str
    role: Role
    counted_as: str
    rate_per_minute: int


class Doorkeeper:
    """Finds out who the caller is."""

    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._rates = Rates(settings.service_failures_per_minute)
        self._provider = Provider(settings) if settings.oidc_issuer else None

    def admitted(self, request: Request, presented: str | None) -> User:
        """The user of a request that is within their rate.

        Raises:
            Problem: UNAUTHORIZED, RATE_LIMITED, or what the provider's absence means.
        """
        address = request.client.host if request.client else ""
        user = self._user(presented, address)
        request.state.user = user.name
        request.state.headers.update(
            self._rates.require_request(user.counted_as, user.rate_per_minute)
        )
        return user

    def _user(self, presented: str | None, address: str) -> User:
        rate = self._settings.service_rate_per_minute
        if self._settings.service_auth == "off":
            return User("local", "runner", "local", rate)
        if not presented:
            raise _unauthorized("send an API key as Authorization: Bearer, or as X-API-Key")
        try:
            return self._of_key(presented) or self._of_token(presented, rate)
        except Problem as problem:
            if problem.code == "UNAUTHORIZED":
                # Who shares an address with somebody who guesses is not kept out with them.
                self._rates.require_few_failures(address)
                self._rates.failed(address)
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
            raise _unauthorized(f"this is no API key: those begin with {PREFIX}")
        claims = self._provider.verified(presented)
        roles = self._provider.roles(claims)
        if not _SUBJECT.fullmatch(claims["sub"]):
            raise _unauthorized("the token's subject is no name that can be remembered")
        name = f"oidc:{claims['sub']}"
        if self._settings.oidc_runner_role in roles:
            return User(name, "runner", name, rate)
        if self._settings.oidc_viewer_role in roles:
            return User(name, "viewer", name, rate)
        raise Problem("FORBIDDEN", "the token gives its subject no role here")


def _unauthorized(why: str) -> Problem:
    return Problem("UNAUTHORIZED", why, {"WWW-Authenticate": "Bearer"})


def _viewer(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    key: Annotated[str | None, Security(_header)],
) -> User:
    presented = bearer.credentials if bearer else key
    if bearer and key and bearer.credentials != key:
        raise _unauthorized("Authorization and X-API-Key name two users")
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    return doorkeeper.admitted(request, presented)


def _runner(user: Annotated[User, Depends(_viewer)]) -> User:
    if user.role != "runner":
        raise Problem("FORBIDDEN", f"{user.name} may read; a runner may do this")
    return user


def _reads_metrics(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    key: Annotated[str | None, Security(_header)],
) -> None:
    """Prometheus on this machine needs no key, and elsewhere its token, or a key, does.

    What comes through a proxy is not from here.
    """
    service: ServiceSettings = request.app.state.service
    token = service.service_metrics_token
    # Compared here, as a key of ours is looked up in the store: metrics tell when that is away.
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
