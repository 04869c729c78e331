"""The file of a backup: a tar, compressed with Zstandard, whose last member lists the others.

Members are `artifacts/<uri>`, `tables/<schema>/<table>` in PostgreSQL's text format of COPY, and
`manifest.json`. A file that was cut off has no manifest, and is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from backtest_pipeline.market.errors import BackupRefused
from backtest_pipeline.storage.artifacts.disk import flush

FORMAT = 1
MANIFEST = "manifest.json"
ARTIFACTS, TABLES = "artifacts/", "tables/"
_CHUNK = 1 << 20
_UNFINISHED, _ABANDONED_AFTER_S = ".unfinished-backup-", 60.0


@dataclass(frozen=True)
class BackedUpFile:
    """A file in a backup."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class BackupManifest:
    """What a backup holds.

    Attributes:
        version: the release that made it.
        created_at: when, UTC.
        root_id: the id of the artifact root that was backed up.
        schema: name and sha256 of each applied SQL file, in their order.
        columns: the columns of each table that were copied, by member.
        sequences: the last value of each sequence, and whether it was used, by name.
        dagster_ddl: the statements that create Dagster's tables, which belong to its release.
        unsound: artifacts that rows name and that were missing or damaged, and so are not here.
        members: every other file of the backup by name.
        format: version of this format.
    """

    version: str
    created_at: datetime
    root_id: str
    schema: Sequence[tuple[str, str]]
    columns: Mapping[str, Sequence[str]]
    sequences: Mapping[str, tuple[int, bool]]
    dagster_ddl: Sequence[str]
    unsound: Sequence[str]
    members: Mapping[str, BackedUpFile] = field(default_factory=dict)
    format: int = FORMAT

    def as_json(self) -> bytes:
        return json.dumps({**asdict(self), "created_at": self.created_at.isoformat()}).encode()

    @staticmethod
    def of_json(text: bytes, path: Path) -> BackupManifest:
        read: dict[str, Any] = json.loads(text)
        if read["format"] != FORMAT:
            raise BackupRefused(
                f"{path}: is a backup of format {read['format']}, and this release reads"
                f" {FORMAT}; restore it with release {read['version']}"
            )
        read["members"] = {name: BackedUpFile(**member) for name, member in read["members"].items()}
        read["created_at"] = datetime.fromisoformat(read["created_at"])
        return BackupManifest(**read)


class ArchiveWriter:
    """Adds members to a backup that is being written."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.members: dict[str, BackedUpFile] = {}

    def add(self, name: str, content: IO[bytes]) -> None:
        """Add a seekable file from its beginning."""
        size = content.seek(0, io.SEEK_END)
        content.seek(0)
        digest = _digest(content)
        content.seek(0)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o600
        self._tar.addfile(entry, content)
        self.members[name] = BackedUpFile(size, digest)


def _digest(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := content.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def writing_archive(path: Path) -> Iterator[ArchiveWriter]:
    """Write a backup that gets its name once it is complete and on disk.

    What killed backups have left in the folder is deleted.

    Raises:
        BackupRefused: where the file exists, or its folder cannot be written to.
    """
    if path.exists():
        raise BackupRefused(f"{path} exists; name a file that does not, or remove that one")
    unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    try:
        _sweep(path.parent)
        with (
            _locked(unfinished),
            pa.output_stream(str(unfinished), compression="zstd") as stream,
            tarfile.open(fileobj=stream, mode="w|") as tar,
        ):
            yield ArchiveWriter(tar)
        flush(unfinished)
        unfinished.rename(path)
        flush(path.parent)
    except OSError as error:
        raise BackupRefused(
            f"cannot write the backup {path}: {error.strerror or error}; name a file in a folder"
            " that exists, with enough space"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


@contextmanager
def _locked(unfinished: Path) -> Iterator[None]:
    """Create a file that its writer holds a lock on; a kill releases it."""
    held = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _sweep(folder: Path) -> None:
    """Delete the unfinished backups in a folder that nobody is writing any more."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError), path.open("rb") as file:  # others finish, or sweep, at any moment
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def verified(path: Path) -> BackupManifest:
    """Read a whole backup and compare every member with its hash; returns its manifest.

    Raises:
        BackupRefused: where it is no backup, is incomplete, or has changed since it was made.
    """
    if path.is_dir():
        raise BackupRefused(f"{path}: is a folder; name the file that `backup` has written")
    found: dict[str, BackedUpFile] = {}
    manifest = None
    try:
        for name, content in members_of(path):
            if name == MANIFEST:
                manifest = BackupManifest.of_json(content.read(), path)
                continue
            digest = _digest(content)
            found[name] = BackedUpFile(content.tell(), digest)
    except FileNotFoundError:
        raise BackupRefused(f"{path}: no such file; name a backup") from None
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BackupRefused(
            f"{path}: cannot be read as a backup ({error}); it is incomplete, damaged, or another"
            " file"
        ) from error
    if manifest is None:
        raise BackupRefused(f"{path}: is incomplete; restore another backup")
    differing = sorted(
        name
        for name in found.keys() | manifest.members.keys()
        if found.get(name) != manifest.members.get(name)
    )
    if differing:
        more = f" and {len(differing) - 1} more" if differing[1:] else ""
        raise BackupRefused(
            f"{path}: {differing[0]}{more} has changed since it was made; restore another backup"
        )
    return manifest


def members_of(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The files in a backup in their order, each to be read before the next."""
    with (
        pa.input_stream(str(path), compression="zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        for entry in tar:
            content = tar.extractfile(entry)
            if content is not None:  # a file; a backup has nothing else
                yield entry.name, content
