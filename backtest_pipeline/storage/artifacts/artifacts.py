"""Artifacts on a local disk or in a bucket: written atomically, and verified when read.

Snapshots are single Parquet files named by the sha256 of their bytes. Results are directories with
a `manifest.json` that lists each file's rows, bytes and sha256. The modules `disk` and `bucket`
store the files.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backtest_pipeline.market.errors import ArtifactCorrupt, ArtifactError
from backtest_pipeline.storage.artifacts.backend import (
    MANIFEST,
    Alone,
    Backend,
    StoredFile,
    sha256_of,
    undisturbed,
)
from backtest_pipeline.storage.artifacts.disk import Disk, flush, write_bytes, write_parquet
from backtest_pipeline.storage.artifacts.manifest import Entry, Manifest
from backtest_pipeline.storage.settings import Settings

ROOT_ID_FILE = "store-id"
_REPAIR = "refresh with --full-rebuild"


@dataclass(frozen=True)
class ArtifactStore:
    """Artifacts by uri, a path with `/` below the root of the store.

    Attributes:
        root: local folder of the artifacts, or of their copies if they are in a bucket.
        bucket: URL of the bucket; empty if they are in the folder.
        copies_bytes: maximum size of local copies; least recently used ones are removed first.
    """

    root: Path
    bucket: str = ""
    copies_bytes: int = 10_000_000_000

    @staticmethod
    def of(settings: Settings) -> ArtifactStore:
        """The store that the settings configure."""
        return ArtifactStore(
            settings.artifacts_folder, settings.artifacts_bucket, int(settings.cache_max_gb * 1e9)
        )

    @cached_property
    def _files(self) -> Backend:
        if not self.bucket:
            return Disk(self.root)
        from backtest_pipeline.storage.artifacts.bucket import Bucket

        return Bucket(self.bucket, self.root, self.copies_bytes)

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """The sha256 of files this process has written or read, by uri."""
        return {}

    @property
    def where(self) -> str:
        """The folder or URL that artifact uris are relative to, for messages."""
        return self._files.where

    def require_writable(self) -> None:
        """Create the folder if necessary; raises ArtifactError if it is not writable."""
        self._files.require_writable()

    def ping(self) -> None:
        """Raise ArtifactError unless the store responds within seconds."""
        self._files.ping()

    def root_id(self) -> str | None:
        """The id of the store that this root belongs to; None if nothing has used it yet."""
        try:
            return self._files.read(ROOT_ID_FILE).decode(errors="replace").strip()
        except FileNotFoundError:
            return None

    def write_root_id(self, root_id: str) -> None:
        """Name the store that this root belongs to; see `storage.artifact_root`."""
        with self._files.writing("") as unfinished:
            write_bytes(f"{root_id}\n".encode(), unfinished)
            self._files.put_file(unfinished, ROOT_ID_FILE)

    def sweep(self, alone: Alone = undisturbed) -> int:
        """Remove what killed writers left more than an hour ago; returns how many.

        What they left of a directory in a bucket has the names that another writer gives its files
        in turn, so it is removed only while nobody writes; else a later sweep does it.

        Args:
            alone: such as `removals.nobody_writing`.
        """
        return self._files.sweep(alone)

    def stored(self) -> Iterator[StoredFile]:
        """Every stored file, except those still being written."""
        return self._files.stored()

    def has(self, uri: str) -> bool:
        """Whether a file or directory exists, intact or not."""
        return not self.gone([uri])

    def gone(self, uris: Collection[str]) -> set[str]:
        """The artifacts among `uris` that are missing."""
        return self._files.gone(uris)

    def remove(self, uri: str) -> None:
        """Remove a file or a published directory; a missing one is not an error.

        Raises:
            ArtifactError: where it cannot be removed, or the uri points outside the store.
        """
        self._require_inside(uri)
        self._files.remove(uri)
        for known in [v for v in tuple(self._hashes) if v == uri or v.startswith(f"{uri}/")]:
            self._hashes.pop(known, None)

    def _require_inside(self, uri: str) -> None:
        if uri != PurePosixPath(uri).as_posix() or {"", ".", ".."} & set(uri.split("/")):
            raise ArtifactError(f"{uri!r} is not an artifact of {self.where}; give a uri below it")

    def sound_files(self, uri: str) -> list[str]:
        """The uris of an artifact's files, each checked by its hash, a directory's manifest last.

        Empty where the artifact is missing or damaged.
        """
        try:
            names = self.manifest(uri).files
        except ArtifactCorrupt:
            return [uri] if self._files.holds(uri, PurePosixPath(uri).stem) else []
        return [f"{uri}/{name}" for name in (*names, MANIFEST)] if self.is_intact(uri) else []

    def read_raw(self, uri: str) -> bytes:
        """The bytes of one of `sound_files`."""
        return self._files.read(uri)

    def write_raw(self, uri: str, content: IO[bytes]) -> None:
        """Write a file that `read_raw` gave, replacing any; a directory's manifest comes last.

        Raises:
            ArtifactError: where it cannot be written, or the uri points outside the store.
        """
        self._require_inside(uri)
        with self._files.writing(str(PurePosixPath(uri).parent)) as unfinished:
            with unfinished.open("wb") as file:
                shutil.copyfileobj(content, file)
            flush(unfinished)
            self._files.put_file(unfinished, uri)

    def put_snapshot(self, folder: str, table: pa.Table) -> str:
        """Store a table under the hash of its bytes, unless it is stored already.

        Returns:
            The uri, `folder/<sha256>.parquet`.
        """
        with self._files.writing(folder) as unfinished:
            write_parquet(table, unfinished)
            sha256 = sha256_of(unfinished)
            uri = f"{folder}/{sha256}.parquet"
            if not self._files.holds(uri, sha256):
                self._files.put_file(unfinished, uri)
        return uri

    def read_snapshot(
        self, uri: str, columns: Sequence[str], assets: Iterable[str] | None = None
    ) -> pa.Table:
        """Read columns of a snapshot, of all assets or only those named.

        Raises:
            ArtifactCorrupt: where the file is missing, or its bytes do not match its name.
        """
        path = self._path(uri, PurePosixPath(uri).stem, "name")
        if assets is None:
            return pq.read_table(path, columns=list(columns))
        # Filtering while reading takes twice as long, and usually all assets are needed.
        table = pq.read_table(path, columns=list(dict.fromkeys(("asset", *columns))))
        selected = set(assets)
        if not _only_of(table["asset"], selected):
            names = pa.array(sorted(selected))
            table = table.filter(pc.is_in(table["asset"], names))  # pyright: ignore[reportAttributeAccessIssue]
        return table.select(list(columns))

    def columns_of(self, uri: str) -> list[str]:
        """Names of a snapshot's columns; raises ArtifactCorrupt as `read_snapshot` does."""
        return pq.read_schema(self._path(uri, PurePosixPath(uri).stem, "name")).names

    def rows_in(self, uri: str) -> int:
        """The number of rows in a snapshot; raises ArtifactCorrupt as `read_snapshot` does."""
        return pq.read_metadata(self._path(uri, PurePosixPath(uri).stem, "name")).num_rows

    def put_directory(
        self, uri: str, tables: Mapping[str, pa.Table], about: Mapping[str, Any]
    ) -> None:
        """Publish tables as a directory with a manifest, unless an intact one exists.

        Any number of processes may publish the same directory concurrently.

        Args:
            uri: the directory, whose name must determine its content.
            tables: tables by file name (`*.parquet`).
            about: further entries of the manifest.
        """
        rows = {name: table.num_rows for name, table in tables.items()}
        writers = {name: partial(write_parquet, table) for name, table in tables.items()}
        self._publish(uri, writers, rows, about)

    def put_files(self, uri: str, files: Mapping[str, bytes]) -> None:
        """Publish files by their path in a directory, as `put_directory` does with tables."""
        self._publish(uri, {n: partial(write_bytes, data) for n, data in files.items()}, {}, {})

    def _publish(
        self,
        uri: str,
        writers: Mapping[str, Callable[[Path], None]],
        rows: Mapping[str, int],
        about: Mapping[str, Any],
    ) -> None:
        if self.is_intact(uri):
            return
        with self._files.writing(str(PurePosixPath(uri).parent)) as unfinished:
            unfinished.mkdir()
            files = {}
            for name, write in writers.items():
                path = unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path)
                files[name] = Entry(path.stat().st_size, sha256_of(path), rows.get(name))
            write_bytes(Manifest(files, about).as_json(), unfinished / MANIFEST)
            self._put_in_place(unfinished, uri)

    def _put_in_place(self, unfinished: Path, uri: str) -> None:
        try:
            self._files.put_directory(unfinished, uri)
        except FileExistsError:
            if self.is_intact(uri):
                return  # another process was first, with the same content
            self.remove(uri)  # damaged: replace it
            self._put_in_place(unfinished, uri)

    def put_file(self, uri: str, data: bytes) -> None:
        """Store bytes under a name that contains their sha256, unless an intact file exists."""
        if uri in self._hashes and not self._files.gone([uri]):  # a retention may have been
            return
        path = PurePosixPath(uri)
        if not self._files.holds(uri, path.stem):
            with self._files.writing(str(path.parent)) as unfinished:
                write_bytes(data, unfinished)
                self._files.put_file(unfinished, uri)
        self._hashes[uri] = path.stem

    def read_file(self, uri: str) -> bytes:
        """Read a file that is named by the sha256 of its bytes.

        Raises:
            ArtifactCorrupt: where it is missing, or its bytes do not match its name.
        """
        try:
            data = self._files.read(uri)
        except FileNotFoundError:
            raise ArtifactCorrupt(f"{uri} is missing from the artifacts") from None
        if hashlib.sha256(data).hexdigest() != PurePosixPath(uri).stem:
            raise ArtifactCorrupt(f"{uri} has changed since it was written")
        return data

    def read_table(
        self, uri: str, name: str, columns: Sequence[str] | None = None, filters: Any = None
    ) -> pa.Table:
        """Read a table of a published directory, verified against its manifest.

        Raises:
            ArtifactCorrupt: where it is missing or differs from the manifest.
        """
        return pq.read_table(self._path_in(uri, name), columns=columns, filters=filters)

    def read_bytes(self, uri: str, name: str) -> bytes:
        """Read a file of a published directory as bytes; raises as `read_table`."""
        return self._path_in(uri, name).read_bytes()

    def manifest(self, uri: str) -> Manifest:
        """The manifest of a published directory; raises ArtifactCorrupt if it is unreadable."""
        try:
            return Manifest.of_json(self._files.read(f"{uri}/{MANIFEST}"))
        except (FileNotFoundError, ValueError) as error:
            raise ArtifactCorrupt(f"{uri} has no readable manifest; {_REPAIR}") from error

    def is_intact(self, uri: str) -> bool:
        """Whether all files of a published directory match its manifest."""
        try:
            files = self.manifest(uri).files
        except ArtifactCorrupt:
            return False
        return all(self._files.holds(f"{uri}/{n}", entry.sha256) for n, entry in files.items())

    def at_hand(self, uris: Iterable[str]) -> Path:
        """The local folder with these snapshots and directories, for another process to read.

        Missing or damaged artifacts are skipped: reading them raises the error.
        """
        for uri in uris:
            with suppress(FileNotFoundError, ValueError):
                self._files.bring(uri)
        return self.root

    def _path_in(self, uri: str, name: str) -> Path:
        whole = f"{uri}/{name}"
        if whole not in self._hashes:
            entry = self.manifest(uri).files.get(name)
            if entry is None:
                raise ArtifactCorrupt(f"{name} is not listed in the manifest of {uri}; {_REPAIR}")
            self._hashes[whole] = entry.sha256
        return self._path(whole, self._hashes[whole], "manifest")

    def _path(self, uri: str, sha256: str, expected_by: str) -> Path:
        """A local file with the artifact's bytes, verified against its name or manifest."""
        try:
            path = self._files.path(uri, sha256)
        except FileNotFoundError:
            raise ArtifactCorrupt(f"{uri} is missing from the artifacts; {_REPAIR}") from None
        if path is None:
            self._hashes.pop(uri, None)  # the directory may be repaired later
            raise ArtifactCorrupt(
                f"{uri} has changed since it was written: it does not match its {expected_by}; "
                f"{_REPAIR}"
            )
        return path


def _only_of(names: pa.ChunkedArray, selected: set[str]) -> bool:
    return all(selected.issuperset(chunk.dictionary.to_pylist()) for chunk in names.chunks)
