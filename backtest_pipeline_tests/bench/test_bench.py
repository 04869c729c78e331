"""The measurements run, at a size at which their figures mean nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import CASES

ROOT = Path(__file__).parents[2]
QUICK = {
    "cache": ("bars in one file", "another process reads them too", "bars from a Parquet file"),
    "cross_section": ("One run", "rebalances", "its files and summary"),
    "rules": ("Conditions", "EMA crossover with its filters", "MACD"),
}
SLOW = {
    "plans": ("Planned book", "blocked (exits too)", "History of plans by rules"),
    "results_store": ("the slowest filter", "Retention", "first page"),
    "interval_coverage": ("Coverage", "30 % of days in position", "percentiles"),
    "external": ("pandas.read_sql", "One look at all partitions"),
    "walk_forward": ("all folds at once", "backtesting.py, scaled"),
    "peers": ("backtesting.py", "plain vectorbt", "compiled loop"),
    "grid": ("backtesting.py", "times the simulation", "GiB at the peak"),
    "scaling": ("From bars to committed runs", "processes 2"),
    "universe": ("Full rebuild", "One day appended", "features to last commit"),
    "portfolio": ("One portfolio", "Rollups, monthly", "all five again, nothing changed"),
    "dagster_log": ("Events of a refresh", "nothing new", "bytes a partition reported"),
    "dagster_refresh": ("full rebuild", "one day appended"),
    "provenance": ("What a rebuild spends on it", "fingerprints", "replayed in a fresh process"),
    "own_rules": ("first refresh", "nothing changed", "one strategy edited"),
}
SERVICE = {"service": ("Answers", "run, new", "run, repeated")}
_NO_WRK = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not installed, which measures the service"
)


@pytest.fixture(
    scope="module",
    params=[
        QUICK,
        pytest.param(SLOW, marks=pytest.mark.slow),
        pytest.param(SERVICE, marks=[pytest.mark.slow, _NO_WRK]),
    ],
)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Cases with their figures, and what a quick run of them writes."""
    figures = request.param
    output = tmp_path_factory.mktemp("bench") / "results.md"
    # In a process of its own: Dagster reads its home and its settings once for each process.
    done = subprocess.run(
        [sys.executable, "-m", "bench", *figures, "--quick", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return figures, output.read_text()


def test_each_case_writes_its_tables(measured: tuple[dict[str, tuple[str, ...]], str]) -> None:
    figures, results = measured
    rows = [line for line in results.splitlines() if line.startswith(("| ", "### "))]
    missing = {
        case: [one for one in names if not any(one in row for row in rows)]
        for case, names in figures.items()
    }
    assert not any(missing.values()), missing


def test_every_case_is_among_them() -> None:
    assert {*QUICK, *SLOW, *SERVICE} == set(CASES)


def test_the_results_name_the_machine_but_no_host_and_no_path(
    measured: tuple[dict[str, tuple[str, ...]], str],
) -> None:
    _, results = measured
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
