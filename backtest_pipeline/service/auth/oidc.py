"""Bearer tokens of an OpenID provider: verified signature, issuer, audience and expiry.

The provider's discovery document names its keys; both are cached, and fetched at most every
`_FLOOR_S` seconds, whatever key a token claims and however often the provider fails.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Lock
from typing import Any

import httpx2
import jwt

from backtest_pipeline.service.problems import Problem
from backtest_pipeline.service.settings import ServiceSettings, is_safe_address

_ALGORITHMS = ("RS256", "ES256")  # asymmetric alone: a public key must never verify as a secret
_REQUIRED = ("exp", "iss", "aud", "sub")  # not nbf, which many providers leave out
_LEEWAY_S = 30
_TIMEOUT_S = 5
_QUEUE_S = 0.5
_FLOOR_S = 30
_KEYS_LIVE_S = 3600
_LONGEST_TOKEN = 8_192


class OidcProvider:
    """One OpenID provider."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._issuer = settings.oidc_issuer
        self._audience = settings.oidc_audience
        self._roles_claim = settings.oidc_roles_claim.split(".")
        self._lock = Lock()
        self._keys: jwt.PyJWKClient | None = None
        self._failed_at = float("-inf")

    def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that the provider signed for this service.

        Raises:
            Problem: UNAUTHORIZED for any other token; IDENTITY_UNAVAILABLE if the provider's keys
                are needed and it does not respond.
        """
        if len(token) > _LONGEST_TOKEN:
            raise _unauthorized("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in _ALGORITHMS:
                raise _unauthorized(f"the token must be signed with {' or '.join(_ALGORITHMS)}")
            if not isinstance(header.get("kid"), str):
                raise _unauthorized("the token does not say which key signed it")
            return jwt.decode(
                token,
                self._key(header["kid"]),
                algorithms=list(_ALGORITHMS),
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": list(_REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise _unauthorized(f"the token is not valid: {error}") from error

    def roles(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """The roles of the token's subject, by the provider's names."""
        value: Any = claims
        for name in self._roles_claim:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, str):
            return frozenset(value.split())
        if isinstance(value, list):
            return frozenset(role for role in value if isinstance(role, str))
        return frozenset()

    def _key(self, kid: str) -> jwt.PyJWK:
        # While one request waits for a slow provider the others must not queue behind it: that
        # would take the threads of all requests.
        if not self._lock.acquire(timeout=_QUEUE_S):
            return self._kept_key(kid)
        try:
            if time.monotonic() - self._failed_at < _FLOOR_S:
                return self._kept_key(kid)
            if self._keys is None:
                self._keys = self._discovered()
            return self._keys.get_signing_key(kid)
        except (httpx2.HTTPError, jwt.PyJWKClientConnectionError, ValueError) as error:
            self._failed_at = time.monotonic()
            raise _unavailable() from error
        finally:
            self._lock.release()

    def _kept_key(self, kid: str) -> jwt.PyJWK:
        """A cached key, without a request to the provider."""
        kept = self._keys.jwk_set_cache.get() if self._keys and self._keys.jwk_set_cache else None
        for key in kept.keys if kept else ():
            if key.key_id == kid:
                return key
        raise _unavailable()

    def _discovered(self) -> jwt.PyJWKClient:
        address = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        response = httpx2.get(address, timeout=_TIMEOUT_S, follow_redirects=False)
        document = response.raise_for_status().json()
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise ValueError(f"{address} names another issuer")
        keys = str(document.get("jwks_uri", ""))
        if not is_safe_address(keys):
            raise ValueError(f"{address} has a jwks_uri that is not https")
        return jwt.PyJWKClient(
            keys, lifespan=_KEYS_LIVE_S, timeout=_TIMEOUT_S, cooldown_duration=_FLOOR_S
        )


def _unauthorized(why: str) -> Problem:
    return Problem("UNAUTHORIZED", why, {"WWW-Authenticate": "Bearer"})


def _unavailable() -> Problem:
    return Problem(
        "IDENTITY_UNAVAILABLE",
        "the OpenID provider does not respond; try again later, or use an API key",
        {"Retry-After": str(_FLOOR_S)},
    )
