"""Whether files are as they were, told without reading them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from backtest_pipeline.sources.files.settings_file import settings_path

_SETTLED_NS = 2_000_000_000
"""A file may change twice within the smallest step of its file system's clock."""


def state_of(path: Path, *others: str) -> str | None:
    """Hash of the names, sizes and times of the files below a path, and of its settings file.

    Args:
        path: a file, or a folder whose files are read.
        others: what else the bars depend on.

    Returns:
        None where a file was changed within the last two seconds, or one cannot be looked at.
    """
    latest = time.time_ns() - _SETTLED_NS
    found = hashlib.blake2b(repr((str(path), others)).encode(), digest_size=16)
    try:
        for file, status in _files(path):
            if max(status.st_mtime_ns, status.st_ctime_ns) > latest:
                return None
            # An edit in place may keep size and inode, and its tool put the time of the last one
            # back; the time of the last change of its entry nobody can set.
            times = (status.st_mtime_ns, status.st_ctime_ns)
            found.update(repr((str(file), status.st_size, times, status.st_ino)).encode())
    except OSError:  # reading it says what is wrong
        return None
    return found.hexdigest()


def _files(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    if path.is_dir():
        yield from _in_folder(path)
    else:
        yield path, path.stat()
        settings = settings_path(path)
        if settings.exists():
            yield settings, settings.stat()


def _in_folder(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.is_dir():
            yield Path(entry.path), entry.stat()
        elif "=" in entry.name:  # other folders are not read
            yield from _in_folder(Path(entry.path))
