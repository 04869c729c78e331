"""`backtest-pipeline cross-section`, and `strategies` on what ranks a universe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.own_strategies import write

STRENGTH = """
kind = "cross_section"
name = "strength"
description = "Hold what has risen most."
score = "close / shift(close, 20) - 1"
count = 1
"""
IN_PYTHON = """
from backtest_pipeline import CrossSection

STRATEGY = CrossSection(
    "strength_py", score="close / shift(close, 20) - 1", count=1, rebalance="monthly"
)
"""


@pytest.fixture
def folder(cli: CommandLine, tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    home = tmp_path / "home" / "strategies"
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    return home


def test_a_cross_section_is_listed_shown_checked_and_run(
    cli: CommandLine, folder: Path, tmp_path: Path
) -> None:
    write(folder, "strength.toml", STRENGTH)
    write(folder, "strength_py.py", IN_PYTHON)
    listed = cli.json("strategies", "list")["cross_sections"]
    assert [one["cross_section"] for one in listed] == ["strength", "strength_py"]
    assert cli.json("strategies", "show", "strength")["rebalance"] == "weekly"
    checked = cli.json("strategies", "check", "strength")
    assert checked["probes"] == 9
    assert checked["rebalances"]["traded"] > 50
    said = cli("strategies", "check", "strength").out
    assert "no look-ahead found in 9 other futures" in said
    assert {"traded", *checked["figures"]} <= {
        line.split()[0] for line in said.splitlines() if line.strip()
    }
    single = cli("run", "--strategy", "strength", "--asset", "S-ALPHA")
    assert (single.code, "ranks a universe, and is no strategy on single" in single.message) == (
        1,
        True,
    )
    for asset in ("S-ALPHA", "S-BETA"):
        assert cli("run", "--strategy", "rsi", "--asset", asset).code == 0
    found = cli.json("cross-section", "run", "--strategy", "strength")
    assert found["symbols"] == ["S-ALPHA", "S-BETA"]
    assert found["notes"] == ["an information coefficient of two assets is always 1 or -1"]
    given = cli.json("cross-section", "run", "--strategy", "strength", "--assets", "S-BETA,S-ALPHA")
    assert given["metrics"] == found["metrics"]
    text = cli("cross-section", "run", "--strategy", "strength_py").out
    assert "rebalances: " in text
    assert "mean_return, bp" in text
    assert re.search(r"^ *5 +-?[\d,]+\.\d\d ", text, re.MULTILINE), text
    assert "benchmark" in text.splitlines()[2]
    run_id = cli.json("cross-section", "run", "--strategy", "strength_py")["run_id"]
    assert f"report: backtest-pipeline runs report {run_id[:8]}" in text
    assert cli("runs", "report", run_id[:8], "--to", str(tmp_path)).code == 0
    shown = cli.json("runs", "show", found["run_id"])
    assert shown["results"]["cross_section"]["figures"] == found["information"]


def test_what_is_wrong_is_said_at_its_place(cli: CommandLine, folder: Path) -> None:
    write(folder, "wrong.toml", STRENGTH.replace("strength", "wrong").replace("20)", "20"))
    write(folder, "typo.toml", STRENGTH.replace("strength", "typo") + 'weigths = "equal"\n')
    write(folder, "kinds.toml", STRENGTH.replace("strength", "kinds").replace("= 1", '= "1"'))
    write(folder, "dash.toml", STRENGTH.replace("strength", "dash").replace("s_s", "s-s"))
    write(folder, "rsi.toml", STRENGTH.replace("strength", "rsi"))
    write(folder, "strength.toml", STRENGTH)
    refused = cli.json("strategies", "list")["refused"]
    assert "did you mean weights" in refused["typo"]
    assert "count: '1' must be a whole number without quotes" in refused["kinds"]
    assert "a cross-section has kind = \"cross_section\", not 'cross-section'" in refused["dash"]
    assert "as short for rsi_mean_revert" in refused["rsi"]
    assert "score" in refused["wrong"]
    answer = cli("cross-section", "run", "--strategy", "typo")
    assert answer.code == 1
    assert "weigths" in answer.message
    assert "either strategy" in cli("cross-section", "run").message
    answer = cli("cross-section", "run", "--strategy", "rsi_mean_revert")
    assert "rsi_mean_revert is a strategy on single assets; use `run`" in answer.message
    answer = cli("run", "--signal", "strength", "--asset", "S-ALPHA")
    assert "cross-section run --strategy strength" in answer.message
    assert "did you mean strength" in cli("strategies", "check", "strenght").message
