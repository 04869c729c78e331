"""Rows of a stored dataset that a run was made from."""

from __future__ import annotations

from typing import NamedTuple

from backtest_pipeline.storage.tables.datasets import DatasetVersion


class Read(NamedTuple):
    """Rows of a stored dataset that a run was made from.

    Attributes:
        version: the stored version that they were read from.
        content: hash of the rows that the run depends on: the version's own where it is all of
            them.
    """

    version: DatasetVersion
    content: str

    @staticmethod
    def whole(version: DatasetVersion) -> Read:
        """All rows of a version."""
        return Read(version, version.version)
