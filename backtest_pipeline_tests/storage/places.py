"""Places that artifacts may be in, with what a test must be able to do there behind their back."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import obstore
from obstore.store import from_url

from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore


class Place(Protocol):
    """Where the files of a store are."""

    def machine(self) -> ArtifactStore:
        """The store as a machine sees it that has not read anything of it yet."""
        ...

    def files(self) -> list[str]: ...

    def read(self, uri: str) -> bytes: ...

    def write(self, uri: str, data: bytes) -> None: ...

    def delete(self, uri: str) -> None: ...

    def written(self, uri: str) -> Any:
        """What changes whenever the file is written."""
        ...


@dataclass(frozen=True)
class Folder:
    """A local folder."""

    root: Path

    def machine(self) -> ArtifactStore:
        return ArtifactStore(self.root)

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())

    def read(self, uri: str) -> bytes:
        return (self.root / uri).read_bytes()

    def write(self, uri: str, data: bytes) -> None:
        (self.root / uri).parent.mkdir(parents=True, exist_ok=True)
        (self.root / uri).write_bytes(data)

    def delete(self, uri: str) -> None:
        (self.root / uri).unlink()

    def written(self, uri: str) -> Any:
        return (self.root / uri).stat().st_mtime_ns


@dataclass(frozen=True)
class InBucket:
    """A bucket; each machine that uses it has copies of its own."""

    url: str
    copies: Path

    @cached_property
    def _store(self) -> Any:
        return from_url(self.url, client_options={"allow_http": True})

    def machine(self) -> ArtifactStore:
        return ArtifactStore(self.copies / uuid.uuid4().hex, self.url)

    def files(self) -> list[str]:
        return sorted(found["path"] for some in obstore.list(self._store) for found in some)

    def read(self, uri: str) -> bytes:
        return bytes(obstore.get(self._store, uri).bytes())

    def write(self, uri: str, data: bytes) -> None:
        obstore.put(self._store, uri, data)

    def delete(self, uri: str) -> None:
        obstore.delete(self._store, uri)

    def written(self, uri: str) -> Any:
        modified = obstore.head(self._store, uri)["last_modified"]
        time.sleep(1.1)  # it is known to the second only
        return modified


def flip_a_bit_in(place: Place, uri: str) -> None:
    """Change a stored file as a failing disk does."""
    content = bytearray(place.read(uri))
    content[len(content) // 2] ^= 1
    place.write(uri, bytes(content))
