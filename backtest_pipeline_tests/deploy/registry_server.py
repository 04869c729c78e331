"""A server on this machine that answers as registries of images do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

INDEX = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(INDEX).hexdigest()}"
GIVEN = "for-everybody"


@dataclass
class RegistryServer:
    """What the server has, and was asked for.

    Attributes:
        host: its address with the port.
        tags: repository and tag of each image.
        challenge: how it refuses whoever shows no token; empty to refuse nobody. `{realm}` is where
            it gives tokens.
        says_digest: the header that names the digest; None for none.
        token: what it gives as a token.
        asked: method, path and `Accept` of each request.
        scopes: what tokens were asked for.
    """

    host: str
    tags: set[tuple[str, str]] = field(default_factory=lambda: {("desk/tool", "1.2.3")})
    challenge: str = ""
    says_digest: str | None = DIGEST
    token: object = GIVEN
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    scopes: list[dict[str, list[str]]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        url = urlsplit(request.path)
        if url.path == "/token":
            self.scopes.append(parse_qs(url.query))
            return 200, {}, json.dumps({"token": self.token}).encode()
        self.asked.append((str(request.command), url.path, request.headers.get("Accept", "")))
        if self.challenge and request.headers.get("Authorization") != f"Bearer {GIVEN}":
            said = self.challenge.format(realm=f"http://{self.host}/token")
            return 401, {"WWW-Authenticate": said}, b""
        _, version, *repository, _, tag = url.path.split("/")
        if version != "v2" or ("/".join(repository), tag) not in self.tags:
            return 404, {}, b""
        header = {"Docker-Content-Digest": self.says_digest} if self.says_digest else {}
        return 200, header, INDEX


@contextmanager
def registry_server() -> Iterator[RegistryServer]:
    """Runs one until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = found.answer(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = RegistryServer(f"127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
