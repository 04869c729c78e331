"""A small OpenID provider on this machine: discovery, keys, and tokens good and bad."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "backtests"


class Issuer:
    """Keys, and a server that publishes them."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"rsa": rsa.generate_private_key(65537, 2048)}
        self.asked: list[str] = []
        self.url = ""
        self.says_issuer: str | None = None

    def public_pem(self, kid: str = "rsa") -> bytes:
        return (
            self.keys[kid]
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def add_elliptic_key(self, kid: str) -> None:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "nbf": now - 60,
            "exp": now + 600,
            "roles": ["runner"],
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, kid: str = "rsa", algorithm: str = "RS256", **changed: Any) -> str:
        return jwt.encode(
            self.claims(**changed), self.keys[kid], algorithm=algorithm, headers={"kid": kid}
        )

    def document(self, path: str) -> dict[str, Any] | None:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.says_issuer or self.url, "jwks_uri": f"{self.url}/keys"}
        if path == "/keys":
            return {"keys": [self._published(kid, key) for kid, key in self.keys.items()]}
        return None

    @staticmethod
    def _published(kid: str, key: Any) -> dict[str, Any]:
        public = key.public_key()
        if isinstance(key, rsa.RSAPrivateKey):
            published = RSAAlgorithm.to_jwk(public, as_dict=True)
        else:
            published = ECAlgorithm.to_jwk(public, as_dict=True)
        return {**published, "kid": kid, "use": "sig"}


@contextmanager
def serving(issuer: Issuer, port: int = 0) -> Iterator[None]:
    """The issuer's server; the issuer's address is that of the first one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.document(self.path)
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing: requests are in `Issuer.asked`."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        issuer.url = issuer.url or f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield
        server.shutdown()
        thread.join()
