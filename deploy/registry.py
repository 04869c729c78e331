"""The digest behind a tag: by a tool that is installed, or by the registry's HTTP API."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2

from deploy.images import Image

_HUB, _API_OF_HUB = "docker.io", "registry-1.docker.io"
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
# An index, with an image for each kind of machine, is taken before the image of one kind.
_MANIFESTS = ", ".join(
    (
        *_INDEXES,
        "application/vnd.oci.image.manifest.v1+json;q=0.5",
        "application/vnd.docker.distribution.manifest.v2+json;q=0.5",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIMEOUT_S = 30.0
_LOGIN = "needs a login; log in with crane, skopeo or docker, and run this again"
# They know the registries that the user has logged in to.
TOOLS = {
    "crane": ("crane", "digest", "{image}"),
    "skopeo": ("skopeo", "inspect", "--format", "{{{{.Digest}}}}", "docker://{image}"),
    "docker": (
        *("docker", "buildx", "imagetools", "inspect", "--format", "{{{{.Manifest.Digest}}}}"),
        "{image}",
    ),
}


class DigestNotFound(Exception):
    """The digest of an image could not be found; the message says why and what helps."""


def digest_of(image: Image) -> str:
    """The digest of an image's tag as it is now, such as `sha256:4f...`.

    An installed crane, skopeo or docker is asked first, then the registry itself, without a login.

    Raises:
        DigestNotFound: where none of them knows it.
    """
    told = []
    for tool, command in TOOLS.items():
        if shutil.which(tool):
            try:
                return _of_tool([part.format(image=image) for part in command])
            except DigestNotFound as error:
                told.append(str(error))
    try:
        return of_registry(image)
    except DigestNotFound as error:
        raise DigestNotFound("; ".join([*told, str(error)])) from None


def _of_tool(command: list[str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DigestNotFound(f"{command[0]}: {error}") from None
    found = answer.stdout.strip()
    if answer.returncode == 0 and _DIGEST.fullmatch(found):
        return found
    said = (answer.stderr.strip() or found or "nothing").splitlines()[0]
    raise DigestNotFound(f"{command[0]} says: {said}")


def of_registry(image: Image) -> str:
    """The digest by the registry's HTTP API, version 2, without a login.

    Raises:
        DigestNotFound: where the registry cannot be reached, or does not have or show the image.
    """
    host = _API_OF_HUB if image.registry == _HUB else image.registry
    url = f"{_scheme(host)}://{host}/v2/{image.repository}/manifests/{image.tag}"
    try:
        with httpx2.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client:
            client.headers["Accept"] = _MANIFESTS
            response = client.head(url)
            if response.status_code == httpx2.codes.UNAUTHORIZED:
                client.headers["Authorization"] = f"Bearer {_token(client, response, image)}"
                response = client.head(url)
            _require_found(response, image)
            told = response.headers.get("Docker-Content-Digest")
            if told is None:
                # It is the hash of what the registry answers.
                response = client.get(url)
                _require_found(response, image)
                told = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
    except httpx2.HTTPError as error:
        raise DigestNotFound(
            f"{image}: {host} cannot be reached ({type(error).__name__}: {error}); the tags stay as"
            " they are. Run this where there is a network, or install crane, skopeo or docker"
        ) from None
    if not _DIGEST.fullmatch(told):
        raise DigestNotFound(f"{image}: {host} answers with {told!r}, which is no digest")
    return told


def _require_found(response: httpx2.Response, image: Image) -> None:
    status = response.status_code
    if status == httpx2.codes.OK:
        return
    known: dict[int, str] = {
        httpx2.codes.UNAUTHORIZED: _LOGIN,
        httpx2.codes.FORBIDDEN: "may not be read with this login",
        httpx2.codes.NOT_FOUND: f"is not there: {image.registry} has no such image or tag",
        httpx2.codes.TOO_MANY_REQUESTS: "was asked for too often; try again later, or log in",
    }
    raise DigestNotFound(f"{image} {known.get(status, f'could not be read: HTTP {status}')}")


def _token(client: httpx2.Client, refused: httpx2.Response, image: Image) -> str:
    """A token for everybody, from where the registry's refusal says."""
    challenge = refused.headers.get("WWW-Authenticate", "")
    kind, _, rest = challenge.partition(" ")
    terms = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = terms.pop("realm", "")
    if kind.lower() != "bearer" or not realm:
        raise DigestNotFound(
            f"{image} needs a login; log in with crane, skopeo or docker, and again"
        )
    parts = urlsplit(realm)
    if parts.scheme != _scheme(parts.netloc) and parts.scheme != "https":
        raise DigestNotFound(f"{image}: {realm} gives tokens without TLS")
    answer = client.get(realm, params=terms)
    _require_found(answer, image)
    try:
        given = answer.json()
    except ValueError:
        given = {}
    token = given.get("token") or given.get("access_token")
    if not isinstance(token, str) or not token:
        raise DigestNotFound(f"{image}: {realm} gave no token")
    return token


def _scheme(host: str) -> str:
    """As Docker does: without TLS on this machine alone."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    try:
        is_here = name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        is_here = False
    return "http" if is_here else "https"
