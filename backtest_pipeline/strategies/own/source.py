"""The text of a user's strategy: what is hashed, archived, sent to workers and executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

RULES, PYTHON = ".toml", ".py"
METADATA = "METADATA"
"""What describes an installed package, in a folder such as `dips-1.2.dist-info`."""


@dataclass(frozen=True)
class Source:
    """The files of one strategy, as they were read.

    Attributes:
        main: its file, such as `dip.toml`, `dip.py`, or `dip/__init__.py` of a folder; of an
            installed package `dips-1.2.dist-info/METADATA`.
        files: content by path: that file alone, or every file of its folder or package.
        place: where the files were read, for messages.
    """

    main: str
    files: Mapping[str, bytes]
    place: str = ""

    @staticmethod
    def of(files: Mapping[str, bytes]) -> Source:
        """The source that these files are of.

        Examples:
            >>> Source.of({"dip/__init__.py": b"", "dip/levels.py": b""}).main
            'dip/__init__.py'
        """
        if len(files) == 1:
            (main,) = files
        else:
            described = [name for name in files if _describes(name)]
            mains = described or [name for name in files if name.endswith("/__init__.py")]
            main = min(mains, key=lambda name: name.count("/"))
        return Source(main, files)

    @property
    def is_rules(self) -> bool:
        """Whether it is rules in TOML, and no Python."""
        return self.main.endswith(RULES)

    @property
    def is_package(self) -> bool:
        """Whether it was installed, and its archive is what `own.packages` makes of it."""
        return _describes(self.main)

    @property
    def stem(self) -> str:
        """Name of the file without its ending, or of the folder.

        Examples:
            >>> Source("dip/__init__.py", {}).stem, Source("dip.toml", {}).stem
            ('dip', 'dip')
        """
        path = PurePosixPath(self.main)
        return path.parts[0] if len(path.parts) > 1 else path.stem

    @property
    def where(self) -> str:
        """The path of its file, for messages."""
        return f"{self.place}/{self.main}" if self.place else self.main

    @cached_property
    def digest(self) -> str:
        """The sha256 of its files' names and bytes, 64 hex digits."""
        found = hashlib.sha256()
        for name in sorted(self.files):
            for part in (name.encode(), self.files[name]):
                found.update(len(part).to_bytes(8, "little") + part)
        return found.hexdigest()


def _describes(path: str) -> bool:
    folder, _, name = path.partition("/")
    return folder.endswith(".dist-info") and name == METADATA
