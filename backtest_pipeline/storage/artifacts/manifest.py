"""`manifest.json`, which lists the files of a published directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A file of a directory; `rows` is None unless it is a table."""

    bytes: int
    sha256: str
    rows: int | None = None


@dataclass(frozen=True)
class Manifest:
    """The files of a published directory.

    Attributes:
        files: entries by path in the directory.
        about: further entries of the manifest.
        schema_version: version of this format.
    """

    files: Mapping[str, Entry]
    about: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @staticmethod
    def of_json(text: bytes) -> Manifest:
        """Parse a manifest; raises ValueError if it is invalid."""
        try:
            read = json.loads(text)
            files = {
                name: Entry(entry["bytes"], entry["sha256"], entry.get("rows"))
                for name, entry in read.pop("files").items()
            }
            return Manifest(files, read, read.pop("schema_version"))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from error

    def as_json(self) -> bytes:
        files = {
            name: {
                **({} if entry.rows is None else {"rows": entry.rows}),
                "bytes": entry.bytes,
                "sha256": entry.sha256,
            }
            for name, entry in self.files.items()
        }
        document = {"schema_version": self.schema_version, **self.about, "files": files}
        return json.dumps(document, indent=1, sort_keys=True).encode()
