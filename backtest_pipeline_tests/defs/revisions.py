"""Reads the revisions of Dagster's own tables once for a process.

Each instance in memory runs 90 files to learn the name of the last one, for its runs and once more
for its events: a tenth of a second of each test, and of each tick whose resources are built.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory


@contextmanager
def read_once() -> Iterator[None]:
    """Meanwhile a folder of revisions that was read is known; no test adds one to it."""
    read, known = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

    def remembered(config: Config) -> ScriptDirectory:
        folder = config.get_main_option("script_location")
        if folder not in known:
            known[folder] = read(config)
        return known[folder]

    with pytest.MonkeyPatch.context() as of_alembic:
        of_alembic.setattr(ScriptDirectory, "from_config", remembered)
        yield
