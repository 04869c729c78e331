"""Artifacts in a bucket of S3, Azure or Google, with local copies of those in use.

An object appears atomically, by one put. A directory's manifest is put last, and without a manifest
the directory does not exist; while it is written, a note in `.unfinished-notes/` names it, so that
leftovers of a killed writer can be distinguished from other objects.

Readers get local files: an artifact with a given name and hash never changes, so a copy is
downloaded once and serves all processes of this machine. Written artifacts are kept as copies too.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from backtest_pipeline.market.errors import ArtifactError
from backtest_pipeline.storage.artifacts.backend import (
    ABANDONED_AFTER_S,
    MANIFEST,
    UNFINISHED,
    Alone,
    StoredFile,
)
from backtest_pipeline.storage.artifacts.bucket_errors import of_missing_bucket, refusal
from backtest_pipeline.storage.artifacts.disk import Disk
from backtest_pipeline.storage.artifacts.manifest import Manifest

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore

_NOTES = f"{UNFINISHED}notes"
_COPIED = ".parquet"
_AT_ONCE = 16
_PARTS_AT_ONCE = 4
_ENDPOINT = re.compile(r"(AWS|AZURE|GOOGLE)_.*ENDPOINT")


@dataclass(frozen=True)
class Bucket:
    """Files below a URL such as `s3://bucket/prefix`.

    Attributes:
        url: the bucket with an optional prefix.
        root: local folder of the copies.
        copies_bytes: maximum size of the copies; least recently used ones are removed first.
    """

    url: str
    root: Path
    copies_bytes: int

    @cached_property
    def _copies(self) -> Disk:
        return Disk(self.root, "folder of copies", "set BACKTEST_HOME to a folder on another disk")

    @cached_property
    def _store(self) -> ObjectStore:
        """Client for reads and writes: long timeout, retries for up to a minute."""
        return self._opened(timedelta(minutes=2), 8, timedelta(minutes=1))

    @cached_property
    def _health_client(self) -> ObjectStore:
        """Client for health checks: short timeout, one retry."""
        return self._opened(timedelta(seconds=5), 1, timedelta(seconds=5))

    def _opened(self, timeout: timedelta, retries: int, retry_for: timedelta) -> ObjectStore:
        with self._translated_errors():
            return from_url(
                self.url,
                client_options={
                    "timeout": timeout,
                    "connect_timeout": timedelta(seconds=3),
                    "allow_http": _endpoint_is_http(),
                },
                retry_config={"max_retries": retries, "retry_timeout": retry_for},
            )

    @cached_property
    def _fetching(self) -> defaultdict[str, threading.Lock]:
        """A lock per artifact, so that it is downloaded only once."""
        return defaultdict(threading.Lock)

    @property
    def where(self) -> str:
        return self.url

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate errors of requests in the block; FileNotFoundError for a missing object.

        The library's own message may contain parts of credentials and is not shown.
        """
        try:
            yield
        except FileNotFoundError as error:
            if of_missing_bucket(str(error)):
                raise refusal(self.url, str(error)) from None
            raise FileNotFoundError(f"no such object below {self.url}") from None
        except BaseError as error:
            raise refusal(self.url, str(error)) from None

    def require_writable(self) -> None:
        self._copies.require_writable()
        probe, content = f"{_NOTES}/probe-{uuid.uuid4().hex}", b"probe"
        with self._translated_errors():
            obstore.put(self._health_client, probe, content)
            returned = bytes(obstore.get(self._health_client, probe).bytes())
            obstore.delete(self._health_client, probe)
        if returned != content:
            raise ArtifactError(
                f"{self.url} returned different bytes than were written; set "
                "BACKTEST_ARTIFACTS_URL to a bucket that stores objects unchanged"
            )

    def ping(self) -> None:
        with self._translated_errors():
            obstore.list_with_delimiter(self._health_client, _NOTES)

    def sweep(self, alone: Alone) -> int:
        removed = self._copies.sweep()
        self._drop_copies()
        too_old = time.time() - ABANDONED_AFTER_S
        notes = [n.uri for n in self._listed(_NOTES) if n.modified.timestamp() < too_old]
        if not notes:
            return removed
        with alone() as nobody_writes:
            if not nobody_writes:
                return removed
            for note in notes:
                with suppress(FileNotFoundError):  # another process sweeps too
                    uri = "" if "/probe-" in note else self.read(note).decode()
                    if uri and self.gone([f"{uri}/{MANIFEST}"]):
                        left = [o for o in self._listed(uri) if o.modified.timestamp() < too_old]
                        self._delete([o.uri for o in left])
                    self._delete([note])
                    removed += 1
        return removed

    def _drop_copies(self) -> None:
        """Remove least recently used copies beyond the maximum size; recent ones are kept."""
        copies = [c for c in self._copies.stored() if c.uri.endswith(_COPIED)]
        too_much = sum(copy.bytes for copy in copies) - self.copies_bytes
        too_old = time.time() - ABANDONED_AFTER_S
        for used, copy in sorted(((self._last_used(c), c) for c in copies), key=lambda c: c[0]):
            if too_much <= 0 or used >= too_old:
                return
            self._copies.remove(copy.uri)
            too_much -= copy.bytes

    def _last_used(self, copy: StoredFile) -> float:
        """When a copy was last read by any process; now if another has just removed it."""
        try:
            return (self.root / copy.uri).stat().st_atime
        except FileNotFoundError:
            return time.time()

    def stored(self) -> Iterator[StoredFile]:
        return (file for file in self._listed(None) if not file.uri.startswith(f"{_NOTES}/"))

    def _listed(self, prefix: str | None) -> Iterator[StoredFile]:
        with self._translated_errors():
            for page in obstore.list(self._store, prefix):
                for item in page:
                    yield StoredFile(item["path"], item["size"], item["last_modified"])

    def gone(self, uris: Collection[str]) -> set[str]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            there = pool.map(self._is_there, uris)
            return {uri for uri, is_there in zip(uris, there, strict=True) if not is_there}

    def _is_there(self, uri: str) -> bool:
        with suppress(FileNotFoundError), self._translated_errors():
            obstore.head(self._store, f"{uri}/{MANIFEST}" if _is_directory(uri) else uri)
            return True
        return False

    def read(self, uri: str) -> bytes:
        with self._translated_errors():
            return bytes(obstore.get(self._store, uri).bytes())

    def path(self, uri: str, sha256: str) -> Path | None:
        with self._fetching[uri]:
            with suppress(FileNotFoundError):
                if path := self._copies.path(uri, sha256):
                    # Used now, and not changed: that would be verified again.
                    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
                    return path
            return self._fetched(uri, sha256)

    def _fetched(self, uri: str, sha256: str) -> Path | None:
        parts, digest = self._parts(uri), hashlib.sha256()
        with self._copies.writing(str(PurePosixPath(uri).parent)) as unfinished:
            with unfinished.open("wb") as file:
                for part in parts:
                    digest.update(part)
                    file.write(part)
            if digest.hexdigest() != sha256:
                return None
            self._copies.put_file(unfinished, uri)
        return self.root / uri

    def _parts(self, uri: str) -> Iterator[bytes]:
        """Stream the bytes of an object; raises FileNotFoundError before the first."""
        with self._translated_errors():
            response = obstore.get(self._store, uri)
        return self._streamed(response)

    def _streamed(self, response: GetResult) -> Iterator[bytes]:
        with self._translated_errors():
            yield from response

    def holds(self, uri: str, sha256: str) -> bool:
        digest = hashlib.sha256()
        with suppress(FileNotFoundError):
            for part in self._parts(uri):
                digest.update(part)
            return digest.hexdigest() == sha256
        return False

    def bring(self, uri: str) -> None:
        if _is_directory(uri):
            manifest = self.read(f"{uri}/{MANIFEST}")
            with self._copies.writing(uri) as unfinished:
                unfinished.write_bytes(manifest)
                self._copies.put_file(unfinished, f"{uri}/{MANIFEST}")
            for name, entry in Manifest.of_json(manifest).files.items():
                self.path(f"{uri}/{name}", entry.sha256)
        else:
            self.path(uri, PurePosixPath(uri).stem)

    def writing(self, folder: str) -> AbstractContextManager[Path]:
        return self._copies.writing(folder)

    def put_file(self, unfinished: Path, uri: str) -> None:
        self._upload(unfinished, uri)
        self._copies.put_file(unfinished, uri)

    def put_directory(self, unfinished: Path, uri: str) -> None:
        paths = sorted(path for path in unfinished.rglob("*") if path.is_file())
        manifest = unfinished / MANIFEST
        note = f"{_NOTES}/{uuid.uuid4().hex}"
        with self._translated_errors():
            obstore.put(self._store, note, uri.encode())
        for path in (*(p for p in paths if p != manifest), manifest):
            self._upload(path, f"{uri}/{path.relative_to(unfinished).as_posix()}")
        self._delete([note])
        for path in paths:
            self._copies.put_file(path, f"{uri}/{path.relative_to(unfinished).as_posix()}")

    def _upload(self, path: Path, uri: str) -> None:
        with self._translated_errors():
            obstore.put(self._store, uri, path, max_concurrency=_PARTS_AT_ONCE)

    def remove(self, uri: str) -> None:
        # First the manifest, without which the directory does not exist.
        self._delete([f"{uri}/{MANIFEST}"])
        self._delete([file.uri for file in self._listed(uri)])
        self._delete([uri])
        self._copies.remove(uri)

    def _delete(self, uris: list[str]) -> None:
        with suppress(FileNotFoundError), self._translated_errors():
            obstore.delete(self._store, uris)


def _is_directory(uri: str) -> bool:
    """Whether a uri names a directory; only files have a suffix."""
    return not PurePosixPath(uri).suffix


def _endpoint_is_http() -> bool:
    """Whether the user has configured an endpoint without TLS, which is then allowed."""
    endpoints = [value for name, value in os.environ.items() if _ENDPOINT.match(name)]
    return any(value.startswith("http://") for value in endpoints)
