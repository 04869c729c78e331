"""Importing the package, and refreshing by it, leaves the process as it was."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from backtest_pipeline.launch import refresh
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests import process_state


def test_importing_any_module_changes_nothing_of_the_process(tmp_path: Path) -> None:
    environment = {
        "PYTHONPATH": str(process_state.PACKAGE.parent),
        **{k: v for k, v in os.environ.items() if not k.startswith(("BACKTEST_", "DAGSTER"))},
    }
    found = subprocess.run(
        [sys.executable, "-m", process_state.__name__],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1]) == {}
    assert "Warning" not in found.stderr


def test_a_refresh_leaves_environment_logging_and_warnings_as_they_are(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "BACKTEST_RUN_STORE_MODE": "postgres",
        "BACKTEST_POSTGRES_DSN": database.conninfo,
        "BACKTEST_HOME": str(tmp_path / "home"),
        "BACKTEST_BARS": "",
    }.items():
        monkeypatch.setenv(name, value)
    # It sets warning filters of its own where it is first loaded, which is where it is needed.
    import scipy.cluster.hierarchy
    import scipy.linalg
    import scipy.optimize
    import scipy.special

    assert scipy
    seen = list[tuple[dict[str, str], object, list[object]]]()

    def look(stage: str = "", done: int = 0, total: int = 0) -> None:
        seen.append((dict(os.environ), logging.getLogRecordFactory(), list(warnings.filters)))

    look()
    result = refresh(
        bars="", assets=["S-ALPHA"], timeframes=["1W"], full_rebuild=False, progress=look
    )
    look()
    assert result.failures == ()
    assert len(result.run_ids) == 2
    assert len(seen) > 5
    assert all(environment == seen[0][0] for environment, _, _ in seen)
    assert seen[-1] == seen[0]
