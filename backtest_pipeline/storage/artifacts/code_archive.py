"""Archives of the package's source code, stored with the runs it made, to replay them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore

_PACKAGE = Path(__file__).parents[2]
_FOLDER = "code"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time the zip format allows


@dataclass(frozen=True)
class CodeArchive:
    """A zip file of Python source files; the same files give the same bytes everywhere."""

    data: bytes

    @property
    def uri(self) -> str:
        """The uri of its artifact, named by the sha256 of its bytes."""
        return f"{_FOLDER}/{hashlib.sha256(self.data).hexdigest()}.zip"

    def files(self) -> dict[str, bytes]:
        """The source files by name, such as `backtest_pipeline/market/panel.py`."""
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def archive_of(files: Mapping[str, bytes]) -> CodeArchive:
    """Build an archive of source files; line endings are normalized."""
    return CodeArchive(zipped({n: data.replace(b"\r\n", b"\n") for n, data in files.items()}))


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Files as a zip file: sorted, uncompressed, without times or owners."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every platform
            archive.writestr(entry, files[name])
    return buffer.getvalue()


@cache
def installed_code() -> CodeArchive:
    """The archive of the source code that this process runs: all modules of this package."""
    return code_on_disk()


def code_on_disk() -> CodeArchive:
    """The archive of the source code that a process started now would run."""
    parent = _PACKAGE.parent
    sources = sorted(_PACKAGE.rglob("*.py"))
    return archive_of({p.relative_to(parent).as_posix(): p.read_bytes() for p in sources})


def installed_folder() -> Path:
    """The folder that contains the installed package."""
    return _PACKAGE.parent


def keep_installed_code(artifacts: ArtifactStore) -> None:
    """Store the archive of the installed source code, unless it is stored already."""
    code = installed_code()
    artifacts.put_file(code.uri, code.data)


def read_code(artifacts: ArtifactStore, uri: str) -> CodeArchive:
    """Read an archive; raises ArtifactCorrupt where it is missing or damaged."""
    return CodeArchive(artifacts.read_file(uri))


def extracted(artifacts: ArtifactStore, uri: str) -> Path:
    """Extract an archive to a local folder to run it from, the same folder each time.

    The folder is next to the archive, or to the local copies of a bucket's artifacts, so that code
    is compiled only once; files that were changed there are restored.

    Raises:
        ArtifactCorrupt: where the archive is missing or damaged.
    """
    folder = uri.removesuffix(".zip")
    ArtifactStore(artifacts.root).put_files(folder, read_code(artifacts, uri).files())
    return artifacts.root / folder
