"""Artifacts on a local disk: flushed under a temporary name, then renamed.

A file or folder gets its final name only once its bytes are on disk, and the name is flushed too:
even after a power failure it is either complete or absent.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from backtest_pipeline.market.errors import ArtifactError
from backtest_pipeline.storage.artifacts.backend import (
    ABANDONED_AFTER_S,
    UNFINISHED,
    Alone,
    StoredFile,
    sha256_of,
    undisturbed,
)

_FULL = (errno.ENOSPC, errno.EDQUOT)


class _State(NamedTuple):
    """What changes with a file's bytes: inode, size, time of the last change."""

    inode: int
    bytes: int
    modified_ns: int


def _state_of(path: Path) -> _State:
    status = path.stat()
    return _State(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Disk:
    """Files below a local folder.

    Attributes:
        root: the folder.
        what: description of the folder, for messages.
        elsewhere: how to use another folder, for messages.
    """

    root: Path
    what: str = "artifact folder"
    elsewhere: str = "set BACKTEST_ARTIFACTS_URL to another folder"

    @cached_property
    def _verified(self) -> dict[str, _State]:
        """The files whose bytes were verified by this process, and their state then, by uri."""
        return {}

    @property
    def where(self) -> str:
        return str(self.root)

    def require_writable(self) -> None:
        probe = self.root / f"{UNFINISHED}{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"probe")
            probe.read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"the {self.what} {self.root} is not writable ({error.strerror}); make it "
                f"writable or {self.elsewhere}"
            ) from error
        finally:
            with suppress(OSError):
                probe.unlink()

    def ping(self) -> None:
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise ArtifactError(
                f"the {self.what} {self.root} is missing or not writable; make it writable or "
                f"{self.elsewhere}"
            )

    def sweep(self, alone: Alone = undisturbed) -> int:
        # Unfinished files have names of their own, which nobody else ever uses.
        too_old = time.time() - ABANDONED_AFTER_S
        removed = 0
        for parent, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = Path(parent, name)
                if name.startswith(UNFINISHED) and _last_changed(path) < too_old:
                    _remove(path)
                    removed += 1
            folders[:] = [name for name in folders if not name.startswith(UNFINISHED)]
        return removed

    def stored(self) -> Iterator[StoredFile]:
        for parent, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith(UNFINISHED))
            for name in sorted(files):
                path = Path(parent, name)
                with suppress(FileNotFoundError):  # removed in the meantime
                    if not name.startswith(UNFINISHED):
                        status = path.stat()
                        at = datetime.fromtimestamp(status.st_mtime, UTC)
                        yield StoredFile(path.relative_to(self.root).as_posix(), status.st_size, at)

    def gone(self, uris: Collection[str]) -> set[str]:
        return {uri for uri in uris if not (self.root / uri).exists()}

    def read(self, uri: str) -> bytes:
        try:
            return (self.root / uri).read_bytes()
        except NotADirectoryError as error:
            raise FileNotFoundError(uri) from error

    def path(self, uri: str, sha256: str) -> Path | None:
        path = self.root / uri
        if not path.is_file():
            raise FileNotFoundError(uri)
        state = _state_of(path)
        if self._verified.get(uri) != state:
            self._verified.pop(uri, None)
            if sha256_of(path) != sha256:
                return None
            self._verified[uri] = state
        return path

    def holds(self, uri: str, sha256: str) -> bool:
        self._verified.pop(uri, None)
        with suppress(FileNotFoundError):
            return self.path(uri, sha256) is not None
        return False

    def bring(self, uri: str) -> None:
        """Nothing to do: all files are local."""

    @contextmanager
    def writing(self, folder: str) -> Iterator[Path]:
        parent = self.root / folder
        unfinished = parent / f"{UNFINISHED}{uuid.uuid4().hex}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
        except OSError as error:
            raise self._refusal(parent, error) from error
        finally:
            _remove(unfinished)

    def _refusal(self, folder: Path, error: OSError) -> ArtifactError:
        reason = error.strerror or error
        if error.errno in _FULL:
            return ArtifactError(
                f"cannot write artifacts to {folder}: its disk is full ({reason}); free disk "
                f"space, or {self.elsewhere}"
            )
        return ArtifactError(
            f"cannot write artifacts to {folder}: {reason}; fix that, or {self.elsewhere}"
        )

    def put_file(self, unfinished: Path, uri: str) -> None:
        path = self.root / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        state = _state_of(unfinished)
        unfinished.rename(path)
        flush(path.parent)
        self._verified[uri] = state

    def put_directory(self, unfinished: Path, uri: str) -> None:
        flush(unfinished)
        try:
            unfinished.rename(self.root / uri)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(uri) from error
            raise
        flush((self.root / uri).parent)

    def remove(self, uri: str) -> None:
        path = self.root / uri
        if not path.parent.resolve().is_relative_to(self.root.resolve()):
            raise ArtifactError(
                f"{uri} was not removed because it points outside {self.root}; check the symlinks "
                "in that folder"
            )
        # Renamed first, so that a kill leaves no directory with only some of its files.
        doomed = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                path.rename(doomed)
        except OSError as error:
            raise ArtifactError(
                f"cannot remove {path}: {error.strerror}; make {self.root} writable"
            ) from error
        _remove(doomed)
        for known in [v for v in tuple(self._verified) if v == uri or v.startswith(f"{uri}/")]:
            self._verified.pop(known, None)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table, and flush it to disk."""
    # Prices rarely repeat, so only dictionary columns are dictionary-encoded; stronger compression
    # takes twice the time and saves a tenth.
    names: Any = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    pq.write_table(table, path, compression="lz4", use_dictionary=names)
    flush(path)


def write_bytes(data: bytes, path: Path) -> None:
    """Write bytes, and flush them to disk."""
    path.write_bytes(data)
    flush(path)


def flush(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a file or a folder; a missing one is not an error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def _last_changed(path: Path) -> float:
    """When a path was changed; the current time if it has just been removed."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()
