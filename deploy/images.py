"""Names of images, and which ones the files of this repository name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
KUBERNETES = ROOT / "deploy" / "k8s"
OURS = "BACKTEST_IMAGE"
"""The variable that names our own image, which is built from the Dockerfile."""
_DOCKER_HUB = "docker.io"
_WRITTEN = re.compile(r"\$\{([A-Z]+_IMAGE):-([^}]+)\}")
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    r"(?:(?P<registry>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::\d+)?)/)?"
    rf"(?P<repository>{_PART}(?:/{_PART})*)"
    r":(?P<tag>\w[\w.-]{0,127})"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class BadImage(ValueError):
    """A name that is not that of an image with a tag."""


@dataclass(frozen=True)
class Image:
    """An image with a tag, and perhaps a digest.

    Attributes:
        name: as it was written, without tag and digest, such as `prom/prometheus`.
        tag: such as `v3.5.0`.
        digest: `sha256:` and 64 hexadecimal digits; empty if it is not pinned.
    """

    name: str
    tag: str
    digest: str = ""

    @classmethod
    def of(cls, text: str) -> Image:
        """The image that is named by `name:tag` or `name:tag@sha256:...`.

        Raises:
            BadImage: for anything else, such as a name without a tag.
        """
        found = _NAME.fullmatch(text)
        if found is None:
            raise BadImage(f"{text!r} names no image with a tag, such as postgres:18.4")
        name = text.partition("@")[0].removesuffix(f":{found['tag']}")
        return cls(name, found["tag"], found["digest"] or "")

    @property
    def registry(self) -> str:
        """The host, with its port, that has it."""
        first, slash, _ = self.name.partition("/")
        is_host = slash and ("." in first or ":" in first or first == "localhost")
        return first if is_host else _DOCKER_HUB

    @property
    def repository(self) -> str:
        """Its name on that host; those of Docker itself are below `library`."""
        path = self.name.removeprefix(f"{self.registry}/")
        is_of_docker = self.registry == _DOCKER_HUB and "/" not in path
        return f"library/{path}" if is_of_docker else path

    def pinned(self, digest: str) -> Image:
        """The same image with this digest."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


def of_compose() -> dict[str, Image]:
    """The images that docker-compose.yml names, by the variable that names another one."""
    written = _WRITTEN.findall(COMPOSE.read_text())
    return {variable: Image.of(image) for variable, image in written}


def of_kubernetes() -> dict[str, Image]:
    """The images of others that the values for charts name, by a variable like those of Compose."""
    busybox = read_values("values-dagster.yaml")["busybox"]["image"]
    return {"BUSYBOX_IMAGE": Image.of(f"{busybox['repository']}:{busybox['tag']}")}


def read_values(name: str) -> dict[str, Any]:
    """The values for a chart, by the name of their file."""
    return yaml.safe_load((KUBERNETES / name).read_text())
