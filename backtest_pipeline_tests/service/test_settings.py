"""The service's settings are refused where they would let anybody in."""

from __future__ import annotations

import pytest

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.service.settings import load_service_settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_nobody_is_asked_for_a_key_on_loopback_where_that_is_wanted(host: str) -> None:
    settings = load_service_settings(service_auth="off", service_host=host)
    assert settings.on_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.4", "example.com", "localhost.evil", ""])  # noqa: S104
def test_keys_are_asked_for_wherever_others_can_reach_the_service(host: str) -> None:
    with pytest.raises(ConfigurationError, match="BACKTEST_SERVICE_AUTH: off is for 127"):
        load_service_settings(service_auth="off", service_host=host)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("oidc_issuer", "http://issuer.example.com", "https"),
        ("oidc_issuer", "file:///etc/passwd", "https"),
        ("service_cors_origins", "*", "origins like"),
        ("service_cors_origins", "https://a.example/path", "origins like"),
        ("service_timeout_s", "0", "must be above 0"),
    ],
)
def test_a_bad_value_is_refused_naming_its_variable(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"BACKTEST_{field.upper()}", value)
    with pytest.raises(ConfigurationError, match=f"BACKTEST_{field.upper()}: .*{says}"):
        load_service_settings()


def test_an_issuer_and_its_audience_come_together() -> None:
    with pytest.raises(ConfigurationError, match="BACKTEST_OIDC_AUDIENCE"):
        load_service_settings(oidc_issuer="https://issuer.example.com")
    with pytest.raises(ConfigurationError, match="BACKTEST_OIDC_AUDIENCE"):
        load_service_settings(oidc_audience="backtests")
