"""The measurements run, at a size at which their figures mean nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = {
    "peers": ("backtesting.py", "plain vectorbt", "compiled loop"),
    "grid": ("backtesting.py", "times the simulation", "GiB at the peak"),
    "universe": ("Full rebuild", "One day appended", "features to last commit"),
    "portfolio": ("One portfolio", "Rollups, monthly", "all five again, nothing changed"),
    "dagster_refresh": ("full rebuild", "one day appended"),
    "walk_forward": ("all folds at once", "backtesting.py, scaled"),
    "cache": ("bars in one file", "another process reads them too", "bars from a Parquet file"),
    "external": ("pandas.read_sql", "One look at all partitions"),
    "results_store": ("the slowest filter", "Retention", "first page"),
    "provenance": ("What a rebuild spends on it", "fingerprints", "replayed in a fresh process"),
    "service": ("Answers", "run, new", "run, repeated"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a quick run of all cases writes."""
    output = tmp_path_factory.mktemp("bench") / "results.md"
    # In a process of its own: Dagster reads its home and its settings once for each process.
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output.read_text()


@pytest.mark.parametrize("case", FIGURES)
def test_each_case_writes_its_tables(case: str, results: str) -> None:
    if case == "service" and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed, which measures the service")
    rows = [line for line in results.splitlines() if line.startswith(("| ", "### "))]
    for figure in FIGURES[case]:
        assert any(figure in row for row in rows)


def test_the_results_name_the_machine_but_no_host_and_no_path(results: str) -> None:
    assert "cores" in results
    assert platform.node() not in results
    assert str(ROOT) not in results


def test_an_unknown_case_is_refused_with_those_that_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "universes"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    known = "peers, grid, universe, portfolio, dagster_refresh, walk_forward, cache"
    assert f"no case 'universes'; there are {known}" in done.stderr
