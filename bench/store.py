"""A temporary embedded store."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.postgres.embedded import embedded_server
from backtest_pipeline.storage.postgres.migrations import migrate
from backtest_pipeline.storage.settings import Settings, load_settings


@contextmanager
def fresh_store() -> Iterator[Settings]:
    """Settings of a new, migrated store below a short temporary folder, as the environment."""
    home = Path(tempfile.mkdtemp(prefix="btb-"))
    home.chmod(0o755)  # a server started by root runs as another user
    before = dict(os.environ)
    for name in before:
        if name.startswith(("BACKTEST_", "DAGSTER_")):
            del os.environ[name]
    os.environ["BACKTEST_HOME"] = str(home)
    try:
        settings = load_settings()
        database = open_database(settings)
        try:
            migrate(database)
            yield settings
        finally:
            database.close()
            embedded_server(home).release()
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home)
