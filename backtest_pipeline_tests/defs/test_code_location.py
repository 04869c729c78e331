"""The code location in a process that Dagster starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg

from backtest_pipeline.defs.partitions import register_partitions
from backtest_pipeline.storage.postgres.database import Database

CANARY = "SECRET-CANARY"


def test_dagster_s_own_command_finds_it_and_tells_no_secret(
    store: Database, tmp_path: Path
) -> None:
    """A secret of the environment is part of a path, and the path of the reason of a failure."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        register_partitions(instance, ["S-ALPHA"])
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "BACKTEST_BARS": f"/nowhere/{CANARY}/bars.csv",
        "AWS_SECRET_ACCESS_KEY": CANARY,
    }
    command = (*("-m", "dagster", "asset", "materialize"), "-m", "backtest_pipeline.definitions")
    answer = subprocess.run(
        [sys.executable, *command, "--select", "bars", "--partition", "S-ALPHA|1W"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = answer.stdout + answer.stderr
    assert answer.returncode != 0
    assert "/nowhere/***/bars.csv" in told, told
    assert CANARY not in told
    assert "BetaWarning" not in told
