"""Tokens count where the provider signed them, for us, now; its absence is no reason to guess."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from backtest_pipeline.service.auth import oidc
from backtest_pipeline.service.auth.oidc import OidcProvider
from backtest_pipeline.service.problems import Problem
from backtest_pipeline.service.settings import load_service_settings
from backtest_pipeline_tests.ports import free_port
from backtest_pipeline_tests.service.issuer import AUDIENCE, Issuer, serving


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    with serving(made):
        yield made


def provider_of(issuer: Issuer, **settings: Any) -> OidcProvider:
    return OidcProvider(
        load_service_settings(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, **settings)
    )


def refused(provider: OidcProvider, token: str) -> str:
    with pytest.raises(Problem) as caught:
        provider.verify(token)
    return caught.value.code


def test_a_token_of_the_provider_counts_whichever_of_its_keys_signed_it(issuer: Issuer) -> None:
    issuer.add_elliptic_key("ec")
    provider = provider_of(issuer)
    assert provider.verify(issuer.token())["sub"] == "ada"
    assert provider.verify(issuer.token("ec", "ES256"))["sub"] == "ada"
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


def test_a_token_that_does_not_say_since_when_it_counts_does(issuer: Issuer) -> None:
    assert provider_of(issuer).verify(issuer.token(nbf=None))["sub"] == "ada"


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "another"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1_000_000_000},
        {"nbf": 4_000_000_000, "exp": 4_000_000_600},
        *({claim: None} for claim in ("aud", "iss", "exp", "sub")),
    ],
)
def test_a_token_for_others_or_of_another_time_does_not_count(
    issuer: Issuer, changed: dict[str, Any]
) -> None:
    assert refused(provider_of(issuer), issuer.token(**changed)) == "UNAUTHORIZED"


def test_a_token_that_nobody_signed_does_not_count(issuer: Issuer) -> None:
    unsigned = jwt.encode(issuer.claims(), "", algorithm="none", headers={"kid": "rsa"})
    assert refused(provider_of(issuer), unsigned) == "UNAUTHORIZED"


def test_the_public_key_is_no_secret_to_sign_with(issuer: Issuer) -> None:
    def part(content: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "kid": "rsa"}) + b"." + part(issuer.claims())
    signature = hmac.new(issuer.public_pem(), signed, hashlib.sha256).digest()
    token = signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
    assert refused(provider_of(issuer), token.decode()) == "UNAUTHORIZED"


def test_a_token_that_another_key_signed_under_the_same_name_does_not_count(
    issuer: Issuer,
) -> None:
    provider = provider_of(issuer)
    assert provider.verify(issuer.token())
    forged = Issuer()
    forged.url = issuer.url
    assert refused(provider, forged.token()) == "UNAUTHORIZED"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.", "é" * 9, "a" * 100_000])
def test_what_is_no_token_does_not_count(issuer: Issuer, token: str) -> None:
    assert refused(provider_of(issuer), token) == "UNAUTHORIZED"
    assert issuer.asked == []


def test_keys_that_nobody_knows_do_not_make_us_ask_again_and_again(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = provider_of(issuer)
    issuer.add_elliptic_key("later")
    strange = [issuer.token("later", "ES256") for _ in range(20)]
    del issuer.keys["later"]
    for token in strange:
        assert refused(provider, token) == "UNAUTHORIZED"
    assert issuer.asked.count("/keys") == 1


def test_a_new_key_is_found_when_the_floor_between_questions_has_passed(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "_FLOOR_S", 0)
    provider = provider_of(issuer)
    assert provider.verify(issuer.token())
    issuer.add_elliptic_key("new")
    assert provider.verify(issuer.token("new", "ES256"))


def test_a_provider_that_is_down_is_told_as_such_and_left_in_peace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuer, port = Issuer(), free_port()
    with serving(issuer, port):
        known = provider_of(issuer)
        assert known.verify(issuer.token())
    fresh = provider_of(issuer)
    assert refused(fresh, issuer.token()) == "IDENTITY_UNAVAILABLE"
    assert known.verify(issuer.token()), "keys that are known count on"
    with serving(issuer, port):
        issuer.asked.clear()
        assert refused(fresh, issuer.token()) == "IDENTITY_UNAVAILABLE"
        assert issuer.asked == []
        monkeypatch.setattr(oidc, "_FLOOR_S", 0)
        assert fresh.verify(issuer.token())


def test_a_document_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    issuer.says_issuer = "https://elsewhere.example"
    assert refused(provider_of(issuer), issuer.token()) == "IDENTITY_UNAVAILABLE"


@pytest.mark.parametrize(
    ("claim", "claims", "roles"),
    [
        ("roles", {"roles": ["viewer", 7]}, {"viewer"}),
        ("roles", {"roles": "viewer runner"}, {"viewer", "runner"}),
        ("realm_access.roles", {"realm_access": {"roles": ["runner"]}}, {"runner"}),
        ("realm_access.roles", {"realm_access": "runner"}, set()),
        ("roles", {}, set()),
    ],
)
def test_roles_are_read_where_the_provider_puts_them(
    issuer: Issuer, claim: str, claims: dict[str, Any], roles: set[str]
) -> None:
    assert provider_of(issuer, oidc_roles_claim=claim).roles(claims) == roles
