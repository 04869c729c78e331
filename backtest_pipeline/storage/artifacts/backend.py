"""The protocol of artifact backends, implemented by a local disk and by a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished-"
ABANDONED_AFTER_S = 3600

Alone = Callable[[], AbstractContextManager[bool]]
"""Enters a block in which nobody else writes artifacts, on no host; False where somebody does."""


def undisturbed() -> AbstractContextManager[bool]:
    """As `Alone`, for artifacts that nobody else knows."""
    return nullcontext(True)


@dataclass(frozen=True)
class StoredFile:
    """A stored file.

    Attributes:
        uri: path below the root, with `/`.
        bytes: its size.
        modified: when it was written.
    """

    uri: str
    bytes: int
    modified: datetime


class Backend(Protocol):
    """Files by uri, each written atomically.

    Every method raises ArtifactError for errors of the disk, the network or the bucket.
    """

    @property
    def where(self) -> str:
        """The folder or URL of its root, for messages."""
        ...

    def require_writable(self) -> None:
        """Write, read back and remove a probe."""
        ...

    def ping(self) -> None:
        """Raise ArtifactError unless it responds within seconds."""
        ...

    def sweep(self, alone: Alone) -> int:
        """Remove what killed writers left more than an hour ago; returns how many."""
        ...

    def stored(self) -> Iterator[StoredFile]:
        """Every file, except those still being written."""
        ...

    def gone(self, uris: Collection[str]) -> set[str]:
        """The files and directories among `uris` that are missing."""
        ...

    def read(self, uri: str) -> bytes:
        """The current bytes of a file; raises FileNotFoundError if it is missing."""
        ...

    def path(self, uri: str, sha256: str) -> Path | None:
        """A local file with this sha256; None if it does not match.

        Its bytes are verified by each process, and again once its size, inode or time has changed.

        Raises:
            FileNotFoundError: where there is none.
        """
        ...

    def holds(self, uri: str, sha256: str) -> bool:
        """Whether a file with this sha256 exists now; reads the whole file."""
        ...

    def bring(self, uri: str) -> None:
        """Copy a file, or a directory with its manifest, to the local folder.

        Raises:
            FileNotFoundError: where there is none.
            ValueError: for a directory whose manifest cannot be read.
        """
        ...

    def writing(self, folder: str) -> AbstractContextManager[Path]:
        """A local path to write to; anything left there at the end of the block is removed."""
        ...

    def put_file(self, unfinished: Path, uri: str) -> None:
        """Move a flushed, verified file to its uri, replacing any existing file."""
        ...

    def put_directory(self, unfinished: Path, uri: str) -> None:
        """Move a folder of flushed files with their manifest to its uri.

        Raises:
            FileExistsError: if a directory exists there, which has to be removed first.
        """
        ...

    def remove(self, uri: str) -> None:
        """Remove a file or directory; a missing one is not an error."""
        ...


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
