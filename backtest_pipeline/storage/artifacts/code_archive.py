"""The package's own source: kept with the runs that it made, and taken out to make them again."""

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
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that the format knows


@dataclass(frozen=True)
class CodeArchive:
    """A zip file of Python sources; the same sources give the same bytes everywhere."""

    data: bytes

    @property
    def uri(self) -> str:
        """Its artifact, named by the sha256 of its bytes."""
        return f"{_FOLDER}/{hashlib.sha256(self.data).hexdigest()}.zip"

    def files(self) -> dict[str, bytes]:
        """The sources by name, such as `backtest_pipeline/market/panel.py`."""
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def archive_of(files: Mapping[str, bytes]) -> CodeArchive:
    """Sources as an archive."""
    return CodeArchive(zipped({n: data.replace(b"\r\n", b"\n") for n, data in files.items()}))


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Files as a zip file: sorted, uncompressed, without times or owners."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # wherever it is made
            archive.writestr(entry, files[name])
    return buffer.getvalue()


@cache
def installed_code() -> CodeArchive:
    """The sources that this process runs: the modules of this package and nothing else."""
    return code_on_disk()


def code_on_disk() -> CodeArchive:
    """The sources that a process would run that began now."""
    parent = _PACKAGE.parent
    sources = sorted(_PACKAGE.rglob("*.py"))
    return archive_of({p.relative_to(parent).as_posix(): p.read_bytes() for p in sources})


def installed_folder() -> Path:
    """The folder that the installed package lies in."""
    return _PACKAGE.parent


def keep_installed_code(artifacts: ArtifactStore) -> None:
    """Have the installed sources among the artifacts; those that are there are kept."""
    code = installed_code()
    artifacts.put_file(code.uri, code.data)


def read_code(artifacts: ArtifactStore, uri: str) -> CodeArchive:
    """An archive; raises ArtifactCorrupt where it is gone or damaged."""
    return CodeArchive(artifacts.read_file(uri))


def extracted(artifacts: ArtifactStore, uri: str) -> Path:
    """A folder to run an archive's sources from, the same one each time.

    It lies on the local disk beside the archive or the copies of a bucket's artifacts, so that
    what is compiled of it is compiled once; what has been changed there is put right.

    Raises:
        ArtifactCorrupt: where the archive is gone or damaged.
    """
    folder = uri.removesuffix(".zip")
    ArtifactStore(artifacts.root).put_files(folder, read_code(artifacts, uri).files())
    return artifacts.root / folder
