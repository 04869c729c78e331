"""What keeps the files of artifacts: the protocol that a local disk and a bucket both follow."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished-"
ABANDONED_AFTER_S = 3600


@dataclass(frozen=True)
class StoredFile:
    """A file that is there.

    Attributes:
        uri: below the root, with `/`.
        bytes: its size.
        modified: when it was written.
    """

    uri: str
    bytes: int
    modified: datetime


class Backend(Protocol):
    """Files by uri: each is there whole or not at all.

    Every method raises ArtifactError for what the disk, the network or the store refuses.
    """

    @property
    def where(self) -> str:
        """The folder or URL of its root, as people are told it."""
        ...

    def require_writable(self) -> None:
        """Write, read back and remove a probe."""
        ...

    def ping(self) -> None:
        """Whether it answers, within seconds."""
        ...

    def sweep(self) -> int:
        """Remove what killed writers left more than an hour ago; returns how many."""
        ...

    def stored(self) -> Iterator[StoredFile]:
        """Every file, but for those that are being written."""
        ...

    def gone(self, uris: Collection[str]) -> set[str]:
        """Those files and directories that are not there."""
        ...

    def read(self, uri: str) -> bytes:
        """A file as it is there now; raises FileNotFoundError where it is not."""
        ...

    def path(self, uri: str, sha256: str) -> Path | None:
        """A local file with these bytes, checked once a process; None where they are others.

        Raises:
            FileNotFoundError: where there is none.
        """
        ...

    def holds(self, uri: str, sha256: str) -> bool:
        """Whether a file with these bytes is there now, to the last byte."""
        ...

    def bring(self, uri: str) -> None:
        """Have a file, or a directory with its manifest, in the local folder too.

        Raises:
            FileNotFoundError: where there is none.
            ValueError: for a directory whose manifest cannot be read.
        """
        ...

    def writing(self, folder: str) -> AbstractContextManager[Path]:
        """A local path to write to; what is left there at the end is removed."""
        ...

    def put_file(self, unfinished: Path, uri: str) -> None:
        """Put a flushed file, whose bytes were checked, in its place over whatever is there."""
        ...

    def put_directory(self, unfinished: Path, uri: str) -> None:
        """Put a folder of flushed files, and their manifest, in its place.

        Raises:
            FileExistsError: where one is in the way that has to be removed first.
        """
        ...

    def remove(self, uri: str) -> None:
        """Remove a file or directory; none there is as good."""
        ...


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
