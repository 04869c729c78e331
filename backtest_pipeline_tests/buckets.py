"""Servers that speak the protocols of S3 and Azure on this machine, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest

SECRET = base64.b64encode(b"hunter2").decode()
_BOX = "artifacts"
_ACCOUNT = "devstoreaccount1"
# The key of this account is the same in every copy of Azurite.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_INSTALLED = Path(__file__).parents[1] / "ops" / "azurite" / "node_modules" / ".bin"


@dataclass(frozen=True)
class Server:
    """A server with a bucket.

    Attributes:
        scheme: of its URLs.
        variables: what the environment must say to reach it.
    """

    scheme: str
    variables: dict[str, str]

    def new_url(self) -> str:
        """A prefix of its own in the bucket."""
        return f"{self.scheme}://{_BOX}/{uuid.uuid4().hex}"


@contextmanager
def s3_server() -> Iterator[Server]:
    """Moto's server of S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        with urllib.request.urlopen(_put(f"{endpoint}/{_BOX}")):  # noqa: S310
            pass
        yield Server(
            "s3",
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "somebody",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "eu-central-1",
            },
        )
    finally:
        server.stop()


@contextmanager
def azure_server() -> Iterator[Server]:
    """Azurite, where `npm ci --prefix ops/azurite` has installed it; else the test is skipped."""
    program = shutil.which("azurite-blob", path=f"{_INSTALLED}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("no azurite-blob; install it with npm ci --prefix ops/azurite")
    options = ("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry")
    with subprocess.Popen(
        [program, "--blobPort", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = map(re.compile(r"listens on (http://\S+:\d+)").search, process.stdout)
            endpoint = f"{next(filter(None, lines))[1]}/{_ACCOUNT}"
            _create_container(endpoint)
            yield Server(
                "az",
                {
                    "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
                    "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
                    "AZURE_STORAGE_ENDPOINT": endpoint,
                },
            )
        finally:
            process.terminate()


def _create_container(endpoint: str) -> None:
    request = _put(f"{endpoint}/{_BOX}?restype=container")
    said = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "PUT" + "\n" * 12 + "".join(f"{name}:{value}\n" for name, value in said.items())
    signed += f"/{_ACCOUNT}/{_ACCOUNT}/{_BOX}\nrestype:container"
    signature = hmac.digest(base64.b64decode(_KEY), signed.encode(), hashlib.sha256)
    said["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}"
    request.headers.update(said)
    with urllib.request.urlopen(request):  # noqa: S310
        pass


def _put(url: str) -> urllib.request.Request:
    return urllib.request.Request(url, method="PUT")  # noqa: S310
