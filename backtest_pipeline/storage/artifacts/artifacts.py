"""Artifacts on a local disk or in a bucket: there whole or not at all, and checked when read.

Snapshots are single Parquet files named by the sha256 of their bytes. Results are directories
with a `manifest.json` that lists each file's rows, bytes and sha256; what keeps the files has a
module of its own (`disk`, `bucket`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backtest_pipeline.market.errors import ArtifactCorrupt, ArtifactError
from backtest_pipeline.storage.artifacts.backend import MANIFEST, Backend, StoredFile, sha256_of
from backtest_pipeline.storage.artifacts.disk import Disk, flush
from backtest_pipeline.storage.artifacts.manifest import Entry, Manifest
from backtest_pipeline.storage.settings import Settings

_MEND = "refresh with --full-rebuild"


@dataclass(frozen=True)
class ArtifactStore:
    """Artifacts by uri, a path with `/` below the root of the store.

    Attributes:
        root: local folder of the artifacts; of copies of them where they are in a bucket.
        bucket: URL of the bucket that they are in; empty where they are in the folder.
        copies_bytes: copies of a bucket's artifacts beyond this go, those used longest ago first.
    """

    root: Path
    bucket: str = ""
    copies_bytes: int = 10_000_000_000

    @staticmethod
    def of(settings: Settings) -> ArtifactStore:
        """The store that the settings name."""
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
        """The sha256 of files that this process has written or read, by uri."""
        return {}

    @property
    def where(self) -> str:
        """The folder or URL below which people find an artifact by its uri."""
        return self._files.where

    def require_writable(self) -> None:
        """Create the folder if need be; raises ArtifactError where it cannot be written."""
        self._files.require_writable()

    def ping(self) -> None:
        """Ask for a sign of life; raises ArtifactError where none comes within seconds."""
        self._files.ping()

    def sweep(self) -> int:
        """Remove what killed writers left more than an hour ago; returns how many."""
        return self._files.sweep()

    def stored(self) -> Iterator[StoredFile]:
        """Every file that is there, but for those that are being written."""
        return self._files.stored()

    def has(self, uri: str) -> bool:
        """Whether a file or directory is there, intact or not."""
        return not self.gone([uri])

    def gone(self, uris: Collection[str]) -> set[str]:
        """Those of many that are not there, asked for at once."""
        return self._files.gone(uris)

    def remove(self, uri: str) -> None:
        """Remove a file or a published directory; none there is as good.

        Raises:
            ArtifactError: where it cannot be removed, or the uri leads out of the store.
        """
        if uri != PurePosixPath(uri).as_posix() or {"", ".", ".."} & set(uri.split("/")):
            raise ArtifactError(f"{uri!r} is no artifact of {self.where}; give one below it")
        self._files.remove(uri)
        for known in [v for v in tuple(self._hashes) if v == uri or v.startswith(f"{uri}/")]:
            self._hashes.pop(known, None)

    def put_snapshot(self, folder: str, table: pa.Table) -> str:
        """Store a table under the hash of its bytes; an equal one that is there is kept.

        Returns:
            The uri, `folder/<sha256>.parquet`.
        """
        with self._files.writing(folder) as unfinished:
            _write_parquet(table, unfinished)
            sha256 = sha256_of(unfinished)
            uri = f"{folder}/{sha256}.parquet"
            if not self._files.holds(uri, sha256):
                self._files.put_file(unfinished, uri)
        return uri

    def read_snapshot(
        self, uri: str, columns: Sequence[str], assets: Iterable[str] | None = None
    ) -> pa.Table:
        """Columns of a snapshot, of some assets only where named.

        Raises:
            ArtifactCorrupt: where the file is gone or its bytes are not those it is named by.
        """
        path = self._path(uri, PurePosixPath(uri).stem, "name")
        if assets is None:
            return pq.read_table(path, columns=list(columns))
        # A filter while reading takes twice as long as the reading, and mostly all are wanted.
        table = pq.read_table(path, columns=list(dict.fromkeys(("asset", *columns))))
        wanted = set(assets)
        if not _only_of(table["asset"], wanted):
            names = pa.array(sorted(wanted))
            table = table.filter(pc.is_in(table["asset"], names))  # pyright: ignore[reportAttributeAccessIssue]
        return table.select(list(columns))

    def columns_of(self, uri: str) -> list[str]:
        """Names of a snapshot's columns; raises ArtifactCorrupt as `read_snapshot` does."""
        return pq.read_schema(self._path(uri, PurePosixPath(uri).stem, "name")).names

    def rows_in(self, uri: str) -> int:
        """How many rows a snapshot has; raises ArtifactCorrupt as `read_snapshot` does."""
        return pq.read_metadata(self._path(uri, PurePosixPath(uri).stem, "name")).num_rows

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
        with self._files.writing(str(PurePosixPath(uri).parent)) as unfinished:
            unfinished.mkdir()
            files = {}
            for name, write in writers.items():
                path = unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path)
                files[name] = Entry(path.stat().st_size, sha256_of(path), rows.get(name))
            _write_bytes(Manifest(files, about).as_json(), unfinished / MANIFEST)
            self._put_in_place(unfinished, uri)

    def _put_in_place(self, unfinished: Path, uri: str) -> None:
        try:
            self._files.put_directory(unfinished, uri)
        except FileExistsError:
            if self.is_intact(uri):
                return  # another process was first, with the same content
            self.remove(uri)  # unless another process mends it too
            self._put_in_place(unfinished, uri)

    def put_file(self, uri: str, data: bytes) -> None:
        """Store bytes under a name that holds their sha256; an intact file there is kept."""
        if uri in self._hashes and not self._files.gone([uri]):  # a retention may have been
            return
        path = PurePosixPath(uri)
        if not self._files.holds(uri, path.stem):
            with self._files.writing(str(path.parent)) as unfinished:
                _write_bytes(data, unfinished)
                self._files.put_file(unfinished, uri)
        self._hashes[uri] = path.stem

    def read_file(self, uri: str) -> bytes:
        """A file that is named by the sha256 of its bytes.

        Raises:
            ArtifactCorrupt: where it is gone, or its bytes are others.
        """
        try:
            data = self._files.read(uri)
        except FileNotFoundError:
            raise ArtifactCorrupt(f"{uri} is gone from {self.where}") from None
        if hashlib.sha256(data).hexdigest() != PurePosixPath(uri).stem:
            raise ArtifactCorrupt(f"{uri} has changed since it was written to {self.where}")
        return data

    def read_table(
        self, uri: str, name: str, columns: Sequence[str] | None = None, filters: Any = None
    ) -> pa.Table:
        """A file of a published directory, checked against its manifest.

        Raises:
            ArtifactCorrupt: where it is missing or differs from the manifest.
        """
        return pq.read_table(self._path_in(uri, name), columns=columns, filters=filters)

    def read_bytes(self, uri: str, name: str) -> bytes:
        """The bytes of a file of a published directory, as `read_table` reads one."""
        return self._path_in(uri, name).read_bytes()

    def manifest(self, uri: str) -> Manifest:
        """What a published directory says of itself; raises ArtifactCorrupt where it does not."""
        try:
            return Manifest.of_json(self._files.read(f"{uri}/{MANIFEST}"))
        except (FileNotFoundError, ValueError) as error:
            raise ArtifactCorrupt(
                f"{uri} in {self.where} has no readable manifest; {_MEND}"
            ) from error

    def is_intact(self, uri: str) -> bool:
        """Whether a published directory holds what its manifest lists, to the last byte."""
        try:
            files = self.manifest(uri).files
        except ArtifactCorrupt:
            return False
        return all(self._files.holds(f"{uri}/{n}", entry.sha256) for n, entry in files.items())

    def at_hand(self, uris: Iterable[str]) -> Path:
        """A local folder with these snapshots and directories, for another process to read.

        What is gone or damaged is left out: who reads it will tell.
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
                raise ArtifactCorrupt(
                    f"{name} is not among the files that the manifest of {uri} lists; {_MEND}"
                )
            self._hashes[whole] = entry.sha256
        return self._path(whole, self._hashes[whole], "manifest")

    def _path(self, uri: str, sha256: str, said_by: str) -> Path:
        """A local file with the bytes that an artifact has by its name or manifest."""
        try:
            path = self._files.path(uri, sha256)
        except FileNotFoundError:
            raise ArtifactCorrupt(f"{uri} is gone from {self.where}; {_MEND}") from None
        if path is None:
            self._hashes.pop(uri, None)  # the manifest may have been mended by now
            raise ArtifactCorrupt(
                f"{uri} in {self.where} has changed since it was written, for it differs from its "
                f"{said_by}; {_MEND}"
            )
        return path


def _write_parquet(table: pa.Table, path: Path) -> None:
    # Prices hardly repeat: only what is a dictionary already is written as one, and stronger
    # compression takes twice the time to save a tenth.
    names: Any = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    pq.write_table(table, path, compression="lz4", use_dictionary=names)
    flush(path)


def _only_of(names: pa.ChunkedArray, wanted: set[str]) -> bool:
    return all(wanted.issuperset(chunk.dictionary.to_pylist()) for chunk in names.chunks)


def _write_bytes(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    flush(path)
