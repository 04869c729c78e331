"""Artifacts in a bucket of S3, Azure or Google, with copies of those in use on the local disk.

An object appears whole, by one put. Of a directory the manifest is put last, and without one it
is not there; while it is written, a note in `.unfinished-notes/` names it, so that what a killed
writer left can be told from other people's objects.

Readers get local files: an artifact never changes under its name and hash, so a copy is fetched
once and serves all processes of this machine. What is written is kept as a copy, too.
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
        url: the bucket, and maybe a prefix.
        root: local folder of the copies.
        copies_bytes: copies beyond this go, those used longest ago first.
    """

    url: str
    root: Path
    copies_bytes: int

    @cached_property
    def _copies(self) -> Disk:
        return Disk(self.root, "folder of copies", "set BACKTEST_HOME to a folder on another disk")

    @cached_property
    def _store(self) -> ObjectStore:
        """Patient: a request may take long, and is repeated for a minute."""
        return self._opened(timedelta(minutes=2), 8, timedelta(minutes=1))

    @cached_property
    def _brisk(self) -> ObjectStore:
        """For signs of life."""
        return self._opened(timedelta(seconds=5), 1, timedelta(seconds=5))

    def _opened(self, timeout: timedelta, retries: int, retry_for: timedelta) -> ObjectStore:
        with self._asked():
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
        """One download of an artifact at a time; the next one finds the copy."""
        return defaultdict(threading.Lock)

    @property
    def where(self) -> str:
        return self.url

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Requests of the block; raises FileNotFoundError for an object that is not there.

        What the library says may hold parts of credentials, so it is not shown.
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
        with self._asked():
            obstore.put(self._brisk, probe, content)
            found = bytes(obstore.get(self._brisk, probe).bytes())
            obstore.delete(self._brisk, probe)
        if found != content:
            raise ArtifactError(
                f"{self.url} gave back other bytes than were written; set BACKTEST_ARTIFACTS_URL "
                "to a store that keeps what it is given"
            )

    def ping(self) -> None:
        with self._asked():
            obstore.list_with_delimiter(self._brisk, _NOTES)

    def sweep(self) -> int:
        found = self._copies.sweep()
        self._drop_copies()
        too_old = time.time() - ABANDONED_AFTER_S
        for note in [n for n in self._listed(_NOTES) if n.modified.timestamp() < too_old]:
            with suppress(FileNotFoundError):  # another process sweeps too
                uri = "" if "/probe-" in note.uri else self.read(note.uri).decode()
                if uri and self.gone([f"{uri}/{MANIFEST}"]):
                    left = [o for o in self._listed(uri) if o.modified.timestamp() < too_old]
                    self._delete([o.uri for o in left])
                self._delete([note.uri])
                found += 1
        return found

    def _drop_copies(self) -> None:
        """Keep copies within their size; those in use are as young as the sweep allows."""
        copies = [c for c in self._copies.stored() if c.uri.endswith(_COPIED)]
        too_much = sum(copy.bytes for copy in copies) - self.copies_bytes
        too_old = time.time() - ABANDONED_AFTER_S
        for copy in sorted(copies, key=lambda copy: copy.modified):
            if too_much <= 0 or copy.modified.timestamp() >= too_old:
                return
            self._copies.remove(copy.uri)
            too_much -= copy.bytes

    def stored(self) -> Iterator[StoredFile]:
        return (found for found in self._listed(None) if not found.uri.startswith(f"{_NOTES}/"))

    def _listed(self, prefix: str | None) -> Iterator[StoredFile]:
        with self._asked():
            for some in obstore.list(self._store, prefix):
                for found in some:
                    yield StoredFile(found["path"], found["size"], found["last_modified"])

    def gone(self, uris: Collection[str]) -> set[str]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            there = pool.map(self._is_there, uris)
            return {uri for uri, is_there in zip(uris, there, strict=True) if not is_there}

    def _is_there(self, uri: str) -> bool:
        with suppress(FileNotFoundError), self._asked():
            obstore.head(self._store, f"{uri}/{MANIFEST}" if _is_directory(uri) else uri)
            return True
        return False

    def read(self, uri: str) -> bytes:
        with self._asked():
            return bytes(obstore.get(self._store, uri).bytes())

    def path(self, uri: str, sha256: str) -> Path | None:
        with self._fetching[uri]:
            with suppress(FileNotFoundError):
                if path := self._copies.path(uri, sha256):
                    os.utime(path)  # used now
                    return path
            return self._fetched(uri, sha256)

    def _fetched(self, uri: str, sha256: str) -> Path | None:
        parts, found = self._parts(uri), hashlib.sha256()
        with self._copies.writing(str(PurePosixPath(uri).parent)) as unfinished:
            with unfinished.open("wb") as file:
                for part in parts:
                    found.update(part)
                    file.write(part)
            if found.hexdigest() != sha256:
                return None
            self._copies.put_file(unfinished, uri)
        return self.root / uri

    def _parts(self, uri: str) -> Iterator[bytes]:
        """The bytes of an object, as they come; raises FileNotFoundError at once."""
        with self._asked():
            answer = obstore.get(self._store, uri)
        return self._coming(answer)

    def _coming(self, answer: GetResult) -> Iterator[bytes]:
        with self._asked():
            yield from answer

    def holds(self, uri: str, sha256: str) -> bool:
        found = hashlib.sha256()
        with suppress(FileNotFoundError):
            for part in self._parts(uri):
                found.update(part)
            return found.hexdigest() == sha256
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
        with self._asked():
            obstore.put(self._store, note, uri.encode())
        for path in (*(p for p in paths if p != manifest), manifest):
            self._upload(path, f"{uri}/{path.relative_to(unfinished).as_posix()}")
        self._delete([note])
        for path in paths:
            self._copies.put_file(path, f"{uri}/{path.relative_to(unfinished).as_posix()}")

    def _upload(self, path: Path, uri: str) -> None:
        with self._asked():
            obstore.put(self._store, uri, path, max_concurrency=_PARTS_AT_ONCE)

    def remove(self, uri: str) -> None:
        # First the manifest, without which a directory is not there.
        self._delete([f"{uri}/{MANIFEST}"])
        self._delete([found.uri for found in self._listed(uri)])
        self._delete([uri])
        self._copies.remove(uri)

    def _delete(self, uris: list[str]) -> None:
        with suppress(FileNotFoundError), self._asked():
            obstore.delete(self._store, uris)


def _is_directory(uri: str) -> bool:
    """Whether it names a directory: files alone are named by a hash and what they are."""
    return not PurePosixPath(uri).suffix


def _endpoint_is_http() -> bool:
    """Whether the user has named an endpoint without TLS, which is then meant."""
    endpoints = [value for name, value in os.environ.items() if _ENDPOINT.match(name)]
    return any(value.startswith("http://") for value in endpoints)
