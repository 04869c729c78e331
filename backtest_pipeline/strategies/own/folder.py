"""Reads the strategies of a folder, and judges who could have written them.

A file that another user may write is code that another user may run here. So owner and mode of
folder, file and every folder above are judged on open descriptors, and no link leads outside.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.strategies.own.source import PYTHON, RULES, Source

MAX_BYTES = 1_000_000
"""The largest size of one file."""
_MAX_FILES = 200
_SETTLED_NS = 50_000_000  # clocks of file systems advance in steps of some milliseconds
_Stamp = tuple[str, int, int, int, int]


@dataclass(frozen=True)
class FolderContent:
    """What a folder holds.

    Attributes:
        sources: one for each strategy, in order of name.
        refused: why a file was not read, by its name as in `Source.main`.
    """

    sources: tuple[Source, ...]
    refused: dict[str, str]


def read_folder(folder: Path, *, trust: bool = False) -> FolderContent:
    """Read all strategies of a folder: `*.toml`, `*.py`, and folders with an `__init__.py`.

    Names that begin with `.` or `_` are left out. A folder that does not exist holds none.

    Args:
        folder: an absolute folder.
        trust: whether to read what other users own or may write, such as a mount of a container.

    Raises:
        StrategyRefused: where the folder is refused: it is none, cannot be read, or may be
            written by others.
    """
    try:
        root = folder.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):  # of a folder above, which the store names
        return FolderContent((), {})
    except OSError as error:
        raise StrategyRefused(f"{folder}: {error.strerror}; correct BACKTEST_STRATEGIES") from error
    if not root.is_dir():
        raise StrategyRefused(f"{folder} is a file; BACKTEST_STRATEGIES names a folder")
    if not trust:
        for above in (root, *root.parents):
            _require_private(str(above), os.stat(above))
    sources, refused = [], {}
    try:
        mains = list(_strategies_of(root))
    except OSError as error:
        raise StrategyRefused(f"{folder} cannot be read: {error.strerror}") from error
    for name, paths in mains:
        try:
            sources.append(Source(name, _files(root, paths, trust), str(folder)))
        except StrategyRefused as error:
            refused[name] = str(error)
    return FolderContent(tuple(sources), refused)


def stamps(folder: Path) -> tuple[_Stamp, ...] | None:
    """What changes whenever a file of a folder does; None while the last change is too recent.

    Two edits within one step of the file system's clock leave the same times, so that files are to
    be read again until the clock has moved on.
    """
    found, now = [], time.time_ns()
    try:
        belonging = [path for _, paths in _strategies_of(folder) for path in paths]
    except OSError:  # no such folder, or one that reading it says more of
        return ()
    for path in (folder, *belonging):
        try:
            status = path.stat()
        except OSError:
            continue
        last = max(status.st_mtime_ns, status.st_ctime_ns)
        if 0 <= now - last < _SETTLED_NS:
            return None
        times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        found.append((str(path), status.st_ino, *times))
    return tuple(found)


def _strategies_of(root: Path) -> Iterator[tuple[str, list[Path]]]:
    """The main file of each strategy, and the files and folders that belong to it."""
    for path in sorted(root.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            if (path / "__init__.py").is_file():
                inside = (
                    inner
                    for inner in sorted(path.rglob("*"))
                    if not any(p.startswith((".", "__py")) for p in inner.relative_to(path).parts)
                )
                yield f"{path.name}/__init__.py", [path, *inside]
        elif path.suffix in (RULES, PYTHON):
            yield path.name, [path]


def _files(root: Path, belonging: Sequence[Path], trust: bool) -> dict[str, bytes]:
    folders = [path for path in belonging if path.is_dir()]
    paths = [path for path in belonging if not path.is_dir()]
    if len(paths) > _MAX_FILES:
        raise StrategyRefused(
            f"{belonging[0].name} holds {len(paths):,} files; the limit is {_MAX_FILES:,}"
        )
    if not trust:
        for folder in folders:
            _require_private(str(folder), os.stat(folder))
    return {p.relative_to(root).as_posix(): _read(root, p, trust) for p in paths}


def _read(root: Path, path: Path, trust: bool) -> bytes:
    """The bytes of a file, read from one descriptor."""
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root):
            raise StrategyRefused(
                f"it is a link to {real}, outside of {root}; copy the file instead"
            )
        # A pipe without a writer would be waited for.
        with open(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StrategyRefused("it is not a regular file")
            if not trust:
                _require_private(path.relative_to(root).as_posix(), status)
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StrategyRefused(f"it cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise StrategyRefused(f"it is larger than {MAX_BYTES:,} bytes")
    return content


def _require_private(what: str, status: os.stat_result) -> None:
    """Refuse what others may write. Group-write passes: with private groups every file has it."""
    trusted = "or set BACKTEST_STRATEGIES_TRUST=true if everyone who can write it may run code here"
    if status.st_uid not in (0, os.geteuid()):
        raise StrategyRefused(
            f"{what} belongs to another user (uid {status.st_uid}); change its owner, {trusted}"
        )
    is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not is_sticky:
        raise StrategyRefused(
            f"{what} may be written by every user; run chmod o-w on it, {trusted}"
        )
