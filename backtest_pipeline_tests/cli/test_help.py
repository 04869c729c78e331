"""`--help`: answers without loading what computes."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "numpy",
    "pandas",
    "pyarrow",
    "sqlalchemy",
    "dagster",
    "vectorbt",
    "numba",
    "psycopg",
    "plotly",
    "optuna",
)


@pytest.mark.parametrize(
    "command",
    [
        *([], ["run"], ["explore"], ["robustness"], ["refresh"], ["demo"], ["doctor"]),
        *(["walk-forward"], ["leaderboard"], ["negative-controls"], ["register-gates"]),
        *(["bars"], ["bars", "pull"], ["bars", "list"]),
        *(["replay"], ["explain-diff"], ["runs"], ["runs", "list"], ["retention"]),
        *(["look-ahead"], ["serve"], ["keys"], ["keys", "create"]),
    ],
)
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    found = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", "-m", "backtest_pipeline.cli.main"),
            *(*command, "--help"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage" in found.stdout
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in found.stderr.splitlines()}
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_an_error_in_a_process_of_its_own_is_one_message_and_no_traceback() -> None:
    command = [sys.executable, "-m", "backtest_pipeline.cli.main", "run", "--signal", "rsi"]
    found = subprocess.run(
        [*command, "--asset", "A", "--start", "soon"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.splitlines()[-1].startswith("error: --start 'soon' is not a day")
    assert "Traceback" not in found.stderr
