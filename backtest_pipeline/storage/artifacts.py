"""Files under the artifact root: written whole or not at all, and checked when read.

Snapshots are single Parquet files named by the sha256 of their bytes. Results are directories
with a `manifest.json` that lists each file's rows, bytes and sha256. Both appear under their
final name by a rename, after their bytes are on disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backtest_pipeline.market.errors import ArtifactCorrupt, ArtifactError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_UNFINISHED = ".unfinished-"
_ABANDONED_AFTER_S = 3600
_MEND = "refresh with --full-rebuild"


@dataclass(frozen=True)
class Stored:
    """A file that is there.

    Attributes:
        uri: below the root, with `/`.
        bytes: its size.
        modified: when it was written.
    """

    uri: str
    bytes: int
    modified: datetime


@dataclass(frozen=True)
class ArtifactStore:
    """Artifacts below one local folder; uris are paths relative to it, with `/`."""

    root: Path

    @cached_property
    def _verified(self) -> set[str]:
        return set()

    def require_writable(self) -> None:
        """Create the root if need be; raises ArtifactError where it cannot be written."""
        probe = self.root / f"{_UNFINISHED}{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ArtifactError(
                f"the artifact folder {self.root} cannot be written ({error.strerror}); make it "
                "writable or set BACKTEST_ARTIFACTS_URL to another folder"
            ) from error

    def sweep(self) -> int:
        """Remove what killed writers left more than an hour ago; returns how many."""
        too_old = time.time() - _ABANDONED_AFTER_S
        found = 0
        for parent, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = Path(parent, name)
                if name.startswith(_UNFINISHED) and _last_changed(path) < too_old:
                    _remove(path)
                    found += 1
            folders[:] = [name for name in folders if not name.startswith(_UNFINISHED)]
        return found

    def stored(self) -> Iterator[Stored]:
        """Every file that is there, but for those that are being written."""
        for parent, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(_UNFINISHED)]
            for name in files:
                path = Path(parent, name)
                if name.startswith(_UNFINISHED):
                    continue
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue  # removed in the meantime
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                uri = path.relative_to(self.root).as_posix()
                yield Stored(uri, status.st_size, modified)

    def has(self, uri: str) -> bool:
        """Whether something is there under that uri, intact or not."""
        return (self.root / uri).exists()

    def put_snapshot(self, folder: str, table: pa.Table) -> str:
        """Store a table under the hash of its bytes; an equal one that is there is kept.

        Returns:
            The uri, `folder/<sha256>.parquet`.
        """
        with _writing(self.root / folder) as unfinished:
            _write_parquet(table, unfinished)
            uri = f"{folder}/{_sha256(unfinished)}.parquet"
            _rename(unfinished, self.root / uri)
        self._verified.add(uri)
        return uri

    def read_snapshot(
        self, uri: str, columns: Sequence[str], assets: Iterable[str] | None = None
    ) -> pa.Table:
        """Columns of a snapshot, of some assets only where named.

        Raises:
            ArtifactCorrupt: where the file is gone or its bytes are not those it is named by.
        """
        path = self.root / uri
        if uri not in self._verified:
            if not path.is_file():
                raise ArtifactCorrupt(f"snapshot {uri} is gone from {self.root}; {_MEND}")
            if _sha256(path) != path.stem:
                raise ArtifactCorrupt(
                    f"snapshot {uri} in {self.root} has changed since it was written; {_MEND}"
                )
            self._verified.add(uri)
        if assets is None:
            return pq.read_table(path, columns=list(columns))
        # A filter while reading takes twice as long as the reading, and mostly all are wanted.
        table = pq.read_table(path, columns=list(dict.fromkeys(("asset", *columns))))
        wanted = set(assets)
        if not _only_of(table["asset"], wanted):
            names = pa.array(sorted(wanted))
            table = table.filter(pc.is_in(table["asset"], names))  # pyright: ignore[reportAttributeAccessIssue]
        return table.select(list(columns))

    def rows_in(self, uri: str) -> int:
        """How many rows a snapshot says that it has; raises ArtifactCorrupt where it is gone."""
        try:
            return pq.read_metadata(self.root / uri).num_rows
        except (OSError, pa.ArrowInvalid) as error:
            raise ArtifactCorrupt(
                f"snapshot {uri} in {self.root} cannot be read ({error}); {_MEND}"
            ) from error

    def put_directory(
        self, uri: str, tables: Mapping[str, pa.Table], about: Mapping[str, Any]
    ) -> None:
        """Publish tables as one directory with its manifest; an intact one is kept.

        Any number of processes may publish the same directory at once.

        Args:
            uri: the directory; its content must follow from its name.
            tables: file name (`*.parquet`) to table.
            about: what the manifest says beside the list of files.
        """
        rows = {name: table.num_rows for name, table in tables.items()}
        writers = {name: partial(_write_parquet, table) for name, table in tables.items()}
        self._publish(uri, writers, rows, about)

    def put_files(self, uri: str, files: Mapping[str, bytes]) -> None:
        """Publish files, by their path in it, as `put_directory` does tables."""
        self._publish(uri, {n: partial(_write_bytes, data) for n, data in files.items()}, {}, {})

    def _publish(
        self,
        uri: str,
        writers: Mapping[str, Callable[[Path], None]],
        rows: Mapping[str, int],
        about: Mapping[str, Any],
    ) -> None:
        if self.is_intact(uri):
            return
        with _writing((self.root / uri).parent) as unfinished:
            unfinished.mkdir()
            files = {}
            for name, write in writers.items():
                path = unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path)
                files[name] = {
                    **({"rows": rows[name]} if name in rows else {}),
                    "bytes": path.stat().st_size,
                    "sha256": _sha256(path),
                }
            manifest = {"schema_version": SCHEMA_VERSION, **about, "files": files}
            (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
            _flush(unfinished / MANIFEST)
            _flush(unfinished)
            self._put_in_place(unfinished, uri)

    def _put_in_place(self, unfinished: Path, uri: str) -> None:
        target = self.root / uri
        try:
            _rename(unfinished, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if self.is_intact(uri):
                return  # another process was first, with the same content
            damaged = unfinished.with_name(f"{unfinished.name}-damaged")
            with suppress(FileNotFoundError):  # another process mends it too
                target.rename(damaged)
            _remove(damaged)
            self._put_in_place(unfinished, uri)

    def put_file(self, uri: str, data: bytes) -> None:
        """Store bytes under a name that holds their sha256; an intact file there is kept."""
        path = self.root / uri
        if uri in self._verified or (path.is_file() and _sha256(path) == path.stem):
            return
        with _writing(path.parent) as unfinished:
            _write_bytes(data, unfinished)
            _rename(unfinished, path)
        self._verified.add(uri)

    def read_file(self, uri: str) -> bytes:
        """A file that is named by the sha256 of its bytes.

        Raises:
            ArtifactCorrupt: where it is gone, or its bytes are others.
        """
        path = self.root / uri
        data = path.read_bytes() if path.is_file() else None
        if data is None or hashlib.sha256(data).hexdigest() != path.stem:
            what = "is gone from" if data is None else "has changed since it was written to"
            raise ArtifactCorrupt(f"{uri} {what} {self.root}")
        return data

    def read_table(
        self, uri: str, name: str, columns: Sequence[str] | None = None, filters: Any = None
    ) -> pa.Table:
        """A file of a published directory, checked against its manifest.

        Raises:
            ArtifactCorrupt: where it is missing or differs from the manifest.
        """
        path = self.root / uri / name
        if f"{uri}/{name}" not in self._verified:
            expected = self._hashes(uri).get(name)
            if expected is None or not path.is_file() or _sha256(path) != expected:
                raise ArtifactCorrupt(
                    f"{name} of {uri} in {self.root} is missing or differs from its manifest; "
                    f"{_MEND}"
                )
            self._verified.add(f"{uri}/{name}")
        return pq.read_table(path, columns=columns, filters=filters)

    def _hashes(self, uri: str) -> dict[str, str]:
        """The sha256 of each file that the manifest lists."""
        try:
            manifest = json.loads((self.root / uri / MANIFEST).read_text())
            return {name: entry["sha256"] for name, entry in manifest["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactCorrupt(
                f"{uri} in {self.root} has no readable manifest; {_MEND}"
            ) from error

    def is_intact(self, uri: str) -> bool:
        """Whether a published directory holds what its manifest lists, to the last byte."""
        folder = self.root / uri
        try:
            return all(_sha256(folder / name) == sha for name, sha in self._hashes(uri).items())
        except (ArtifactCorrupt, OSError):
            return False


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """A path in a folder to write to; what is left there at the end is removed.

    Raises:
        ArtifactError: for what the file system refuses.
    """
    unfinished = folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield unfinished
    except OSError as error:
        reason = error.strerror or error
        raise ArtifactError(
            f"cannot write artifacts to {folder}: {reason}; mend that, or set "
            "BACKTEST_ARTIFACTS_URL to another folder"
        ) from error
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    """Remove a file or a folder; none there is as good."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def _last_changed(path: Path) -> float:
    """When a path was changed; now where its writer has just finished."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def _write_parquet(table: pa.Table, path: Path) -> None:
    # Prices hardly repeat: only what is a dictionary already is written as one, and stronger
    # compression takes twice the time to save a tenth.
    names: Any = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    pq.write_table(table, path, compression="lz4", use_dictionary=names)
    _flush(path)


def _only_of(names: pa.ChunkedArray, wanted: set[str]) -> bool:
    return all(wanted.issuperset(chunk.dictionary.to_pylist()) for chunk in names.chunks)


def _write_bytes(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(source: Path, target: Path) -> None:
    source.rename(target)
    _flush(target.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
