"""Files under the artifact root: written whole or not at all, and checked when read.

Snapshots are single Parquet files named by the sha256 of their bytes. Results are directories
with a `manifest.json` that lists each file's rows, bytes and sha256. Both appear under their
final name by a rename, after their bytes are on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backtest_pipeline.market.errors import ArtifactCorrupt, ArtifactError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_UNFINISHED = ".unfinished-"
_ABANDONED_AFTER_S = 3600


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
        for path in self.root.rglob(f"{_UNFINISHED}*"):
            try:
                if path.lstat().st_mtime > too_old:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                found += 1
            except FileNotFoundError:
                continue  # another process swept it, or its writer has just finished
        return found

    def put_snapshot(self, folder: str, table: pa.Table) -> str:
        """Store a table under the hash of its bytes; an equal one that is there is kept.

        Returns:
            The uri, `folder/<sha256>.parquet`.
        """
        target = self.root / folder
        unfinished = target / f"{_UNFINISHED}{uuid.uuid4().hex}"
        try:
            target.mkdir(parents=True, exist_ok=True)
            _write_parquet(table, unfinished)
            uri = f"{folder}/{_sha256(unfinished)}.parquet"
            _rename(unfinished, self.root / uri)
        except OSError as error:
            raise _unwritable(target, error) from error
        finally:
            unfinished.unlink(missing_ok=True)
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
                raise ArtifactCorrupt(f"snapshot {uri} is gone from {self.root}; refresh again")
            if _sha256(path) != path.stem:
                raise ArtifactCorrupt(
                    f"snapshot {uri} in {self.root} has changed since it was written; delete it "
                    "and refresh again"
                )
            self._verified.add(uri)
        filters = None if assets is None else [("asset", "in", list(assets))]
        return pq.read_table(path, columns=list(columns), filters=filters)

    def put_directory(
        self, uri: str, tables: Mapping[str, pa.Table], about: Mapping[str, Any]
    ) -> None:
        """Publish tables as one directory with its manifest; an intact one is kept.

        Args:
            uri: the directory; its content must follow from its name.
            tables: file name (`*.parquet`) to table.
            about: what the manifest says beside the list of files.
        """
        target = self.root / uri
        if self._is_intact(uri):
            return
        unfinished = target.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
        try:
            unfinished.mkdir(parents=True)
            files = {}
            for name, table in tables.items():
                path = unfinished / name
                _write_parquet(table, path)
                files[name] = {
                    "rows": table.num_rows,
                    "bytes": path.stat().st_size,
                    "sha256": _sha256(path),
                }
            manifest = {"schema_version": SCHEMA_VERSION, **about, "files": files}
            (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
            _flush(unfinished / MANIFEST)
            _flush(unfinished)
            if target.exists():  # what an earlier attempt left, found not to be intact above
                shutil.rmtree(target)
            _rename(unfinished, target)
        except OSError as error:
            raise _unwritable(target, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def read_table(
        self, uri: str, name: str, columns: Sequence[str] | None = None, filters: Any = None
    ) -> pa.Table:
        """A file of a published directory, checked against its manifest.

        Raises:
            ArtifactCorrupt: where it is missing or differs from the manifest.
        """
        path = self.root / uri / name
        if f"{uri}/{name}" not in self._verified:
            entry = self._manifest(uri)["files"].get(name)
            if entry is None or not path.is_file() or _sha256(path) != entry["sha256"]:
                raise ArtifactCorrupt(
                    f"{name} of {uri} in {self.root} is missing or differs from its manifest; "
                    "run the backtest again"
                )
            self._verified.add(f"{uri}/{name}")
        return pq.read_table(path, columns=columns, filters=filters)

    def _manifest(self, uri: str) -> dict[str, Any]:
        try:
            return json.loads((self.root / uri / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise ArtifactCorrupt(
                f"{uri} in {self.root} has no readable manifest; run the backtest again"
            ) from error

    def _is_intact(self, uri: str) -> bool:
        if not (self.root / uri).exists():
            return False
        try:
            files = self._manifest(uri)["files"]
        except ArtifactCorrupt:
            return False
        folder = self.root / uri
        return all(
            (folder / name).is_file() and _sha256(folder / name) == entry["sha256"]
            for name, entry in files.items()
        )


def _write_parquet(table: pa.Table, path: Path) -> None:
    # Prices hardly repeat: only what is a dictionary already is written as one.
    names: Any = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    pq.write_table(table, path, compression="zstd", compression_level=1, use_dictionary=names)
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


def _unwritable(target: Path, error: OSError) -> ArtifactError:
    return ArtifactError(f"cannot write artifacts to {target}: {error.strerror or error}")
