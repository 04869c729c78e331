"""Settings of the HTTP service: address, authentication and limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backtest_pipeline.simulation.cores import usable_cores
from backtest_pipeline.storage.settings import PREFIX, is_loopback, read_settings


class ServiceSettings(BaseSettings):
    """Settings of the HTTP service; one field per `BACKTEST_...` variable.

    Attributes:
        service_host: address that `serve` listens on.
        service_port: port that `serve` listens on; 0 for any free one.
        service_auth: `off` requires no key; refused unless the address is loopback.
        service_rate_per_minute: requests per minute of a user without an API key (OIDC, `local`).
        service_failures_per_minute: wrong keys per minute from one address.
        service_body_bytes: maximum size of a request body; longer ones are refused.
        service_request_s: seconds in which the headers of a request must arrive, and then its body.
        service_connections: maximum number of open connections; more get 503.
        service_timeout_s: time limit of a synchronous computation, seconds.
        service_waiting: synchronous requests that may wait for a worker; more are refused.
        service_grace_s: seconds that running requests may take after SIGTERM.
        service_metrics_token: token with which Prometheus reads `/metrics` from another machine, at
            least 16 characters; a secret. Empty to require a viewer's key.
        service_cors_origins: origins whose pages may call the service, separated by commas.
        service_trusted_proxies: addresses whose `X-Forwarded-For` is trusted, separated by commas.
        optimizer_max_concurrency: maximum number of worker processes, never more than cores.
        oidc_issuer: address of the OpenID provider whose tokens are accepted; empty for none.
        oidc_audience: audience that a token must have; required with the issuer.
        oidc_roles_claim: claim that holds the roles; dots for nested claims.
        oidc_viewer_role: the provider's name of the role `viewer`.
        oidc_runner_role: the provider's name of the role `runner`.
        oidc_admin_role: the provider's name of the role `admin`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True
    )

    service_host: str = "127.0.0.1"
    service_port: int = Field(default=8000, ge=0, le=65535)
    service_auth: Literal["on", "off"] = Field(default="on", validate_default=True)
    service_rate_per_minute: int = Field(default=600, ge=1)
    service_failures_per_minute: int = Field(default=30, ge=1)
    service_body_bytes: int = Field(default=65_536, ge=1_024)
    service_request_s: float = Field(default=20, gt=0, le=600)
    service_connections: int = Field(default=1_000, ge=1)
    service_timeout_s: float = Field(default=60, gt=0, le=3600)
    service_waiting: int = Field(default=256, ge=0)
    service_grace_s: int = Field(default=30, ge=0)
    service_metrics_token: SecretStr | None = Field(default=None, min_length=16)
    service_cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    service_trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    optimizer_max_concurrency: int = Field(default=8, ge=1)
    oidc_issuer: str = ""
    oidc_audience: str = Field(default="", validate_default=True)
    oidc_roles_claim: str = Field(default="roles", min_length=1)
    oidc_viewer_role: str = Field(default="viewer", min_length=1)
    oidc_runner_role: str = Field(default="runner", min_length=1)
    oidc_admin_role: str = Field(default="admin", min_length=1)

    @field_validator("service_auth")
    @classmethod
    def _off_only_on_loopback(cls, auth: str, info: ValidationInfo) -> str:
        host = info.data.get("service_host", "")
        if auth == "off" and not is_loopback(host):
            raise ValueError(
                f"off is for 127.0.0.1, ::1 and localhost only; {host} can be reached from other "
                "machines"
            )
        return auth

    @field_validator("service_cors_origins", "service_trusted_proxies", mode="before")
    @classmethod
    def _are_separated(cls, given: str | tuple[str, ...]) -> tuple[str, ...]:
        return tuple(given.replace(",", " ").split()) if isinstance(given, str) else given

    @field_validator("service_cors_origins")
    @classmethod
    def _origins_are_exact(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or parts.path or not parts.netloc:
                raise ValueError(f"must be origins like https://desk.example.com, not {origin!r}")
        return origins

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer_is_safe(cls, url: str) -> str:
        if url and not is_safe_address(url):
            raise ValueError(f"must be an https address, not {url!r}")
        return url

    @field_validator("oidc_audience")
    @classmethod
    def _audience_goes_with_issuer(cls, audience: str, info: ValidationInfo) -> Any:
        if bool(audience) != bool(info.data.get("oidc_issuer")):
            raise ValueError("set both BACKTEST_OIDC_ISSUER and this variable, or neither")
        return audience

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return min(self.optimizer_max_concurrency, usable_cores())

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.service_host)


def load_service_settings(**overrides: Any) -> ServiceSettings:
    """The settings of the service, as `storage.settings.read_settings` reads them."""
    return read_settings(ServiceSettings, **overrides)


def is_safe_address(url: str) -> bool:
    """Whether responses from this address cannot be tampered with: https, or http on loopback."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )
