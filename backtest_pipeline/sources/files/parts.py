"""Which files of a path hold bars: single files, folders, hive folders, members of archives."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files.settings_file import SETTINGS_NAME

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".feather": "feather",
    ".arrow": "feather",
    ".ipc": "feather",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
COMPRESSIONS = (".gz", ".zst", ".bz2", ".lz4", ".xz")
ARCHIVE = ".zip"
_WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
_HDF5 = (".h5", ".hdf5", ".hdf")
_COMPANIONS = (".checksum", ".md5", ".sha256", ".sha1")  # of a file of the same name
_LARGEST_MEMBER = 8 * 2**30


def _is_hidden(name: str) -> bool:
    """Whether people do not see it: what systems and data lakes put beside data."""
    return name.startswith((".", "__MACOSX", "_SUCCESS", "_metadata", "_common_metadata"))


@dataclass(frozen=True)
class Part:
    """One file, or one member of an archive, that may hold bars.

    Attributes:
        path: of the file.
        member: name in the archive; empty for a file.
        hive: `key=value` of the folders below the path that was asked for.
    """

    path: Path
    member: str = ""
    hive: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """Without folders."""
        return Path(self.member).name if self.member else self.path.name

    @property
    def stem(self) -> str:
        """The name without the endings that say how it is stored."""
        ending, compression = _endings(self.name)
        return self.name[: len(self.name) - len(ending) - len(compression)]

    @property
    def format(self) -> str:
        """`parquet`, `csv`, `feather` or `json`."""
        return FORMATS[_endings(self.name)[0].lower()]

    def open(self) -> pa.NativeFile:
        """Its bytes, decompressed; seekable."""
        compression = _endings(self.name)[1].lower()
        if self.member:
            return pa.BufferReader(_decompressed(self._member_bytes(), compression))
        if not compression:
            return pa.memory_map(str(self.path))
        return pa.BufferReader(_decompressed(self.path.read_bytes(), compression))

    def _member_bytes(self) -> bytes:
        with zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(self.member)
            if info.file_size > _LARGEST_MEMBER:
                raise BarsError(f"{self.where}: {info.file_size:,} bytes; unpack it first")
            try:
                return archive.read(info)
            except RuntimeError as reason:  # zipfile's own for a member with a password
                raise BarsError(f"{self.where}: {reason}; unpack it first") from reason


def _decompressed(content: bytes, compression: str) -> bytes:
    if compression in (".zst", ".lz4"):
        stream = pa.BufferReader(content)
        return pa.CompressedInputStream(stream, {".zst": "zstd", ".lz4": "lz4"}[compression]).read()
    how = {"": bytes, ".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
    return how[compression](content)


def _endings(name: str) -> tuple[str, str]:
    """The ending of the format and that of the compression, as written; empty where none is."""
    path = Path(name)
    compression = path.suffix if path.suffix.lower() in COMPRESSIONS else ""
    inner = Path(name[: len(name) - len(compression)]) if compression else path
    return (inner.suffix, compression) if inner.suffix.lower() in FORMATS else ("", "")


def _not_read(name: str) -> str:
    """Why a file of this name is not read, and what to do."""
    ending = Path(name).suffix.lower()
    if ending in _WORKBOOKS:
        return "a workbook, which is not read; save its sheet as CSV"
    if ending in _HDF5:
        return "HDF5, which is not read; write its table as Parquet or CSV"
    return f"not one of {', '.join(FORMATS)}, {ARCHIVE}, each also with {', '.join(COMPRESSIONS)}"


def parts_of(path: Path) -> tuple[list[Part], list[str]]:
    """The parts below a path that may hold bars, and a sentence on each thing that does not.

    Hidden files, checksums and the settings file are passed over; so is nothing else.

    Raises:
        BarsError: where there is no such path, or nothing in it can hold bars.
    """
    unread: list[str] = []
    if path.is_dir():
        parts = list(_in_folder(path, {}, unread))
        if not parts:
            told = f" ({'; '.join(unread[:3])})" if unread else ""
            raise BarsError(
                f"{path}: no {', '.join(FORMATS)} or {ARCHIVE} file in it{told}; name another path"
            )
        return parts, unread
    if not path.is_file():
        if path.is_symlink():
            raise BarsError(f"{path}: links to a file that is not there; fix the link")
        raise BarsError(f"{path}: no such file or folder; check the path")
    parts = list(_of_file(path, {}, unread))
    if not parts:
        raise BarsError(unread[0])
    return parts, unread


def _in_folder(folder: Path, hive: Mapping[str, str], unread: list[str]) -> Iterator[Part]:
    for path in sorted(folder.iterdir()):
        name = path.name
        if _is_hidden(name) or name == SETTINGS_NAME:
            continue
        key, equals, value = name.partition("=")
        if path.is_dir() and equals and key:
            yield from _in_folder(path, {**hive, key.lower(): unquote(value)}, unread)
        elif path.is_dir():
            unread.append(f"{path}: a sub-folder, which is not read; name it as the path")
        elif not path.is_file():
            why = "links to a file that is not there" if path.is_symlink() else "is no file"
            unread.append(f"{path}: {why}; fix or remove it")
        elif path.suffix.lower() not in _COMPANIONS:
            yield from _of_file(path, hive, unread)


def _of_file(path: Path, hive: Mapping[str, str], unread: list[str]) -> Iterator[Part]:
    if path.suffix.lower() == ARCHIVE:
        yield from _in_archive(path, hive, unread)
    elif _endings(path.name)[0]:
        yield Part(path, hive=hive)
    else:
        unread.append(f"{path}: {_not_read(path.name)}")


def _in_archive(path: Path, hive: Mapping[str, str], unread: list[str]) -> Iterator[Part]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (OSError, zipfile.BadZipFile) as reason:
        unread.append(f"{path}: cannot be read ({reason}); fetch the archive again")
        return
    found = False
    for member in sorted(members):
        folders = Path(member).parts
        if any(_is_hidden(folder) for folder in folders):
            continue
        if _endings(member)[0]:
            found = True
            yield Part(path, member, hive)
        else:
            unread.append(f"{path}!{member}: {_not_read(member)}")
    if not found:
        unread.append(f"{path}: holds no file of bars; name another archive")
