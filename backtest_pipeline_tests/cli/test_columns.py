"""`columns`: what is listed and remarked, and what its page shows runs as it is shown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.documents import blocks

PAGE = "docs/columns.md"


def test_the_page_leads_from_scores_to_a_walk_forward(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("columns", "strategies"):
        (tmp_path / name).mkdir(mode=0o755)
        monkeypatch.setenv(f"BACKTEST_{name.upper()}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    (program,) = blocks(PAGE, "python")
    exec(compile(program, PAGE, "exec"), {})  # noqa: S102 - our own document
    (tmp_path / "strategies" / "scored.toml").write_text(blocks(PAGE, "toml")[0])
    (session,) = blocks(PAGE, "console")
    commands = [line.split()[2:] for line in session.splitlines()]
    assert [command[0] for command in commands] == [
        *("refresh", "columns", "run", "explore", "walk-forward")
    ]
    for command in commands:
        answer = cli(*command)
        assert answer.code == 0, answer.err
    with cli.database.begin() as connection:
        counted = sa.text("SELECT count(*) FROM trials WHERE strategy = 'scored'")
        assert connection.scalar(counted) > 12
    (listed,) = cli.json("columns")["columns"]
    assert (listed["column"], listed["assets"], listed["remarks"]) == ("score", 2, [])
    assert 0.5 < listed["with_value"] < 1


def test_what_looks_wrong_is_remarked(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "columns"
    monkeypatch.setenv("BACKTEST_COLUMNS", str(folder))
    assert "there are none; put files" in cli("columns").out
    folder.mkdir()
    bars = pd.concat([daily_bars(symbol=name) for name in ("AAA", "BBB")])
    path = write(bars, tmp_path / "bars.csv")
    assert cli("refresh", "--bars", path, "--timeframes", "1D").code == 0
    days = daily_bars()["ts"] + pd.Timedelta(days=1)
    write(pd.DataFrame({"symbol": "AAA", "ts": days, "same": 1.0}), folder / "one.csv")
    write(pd.DataFrame({"symbol": "CCC", "ts": days, "other": 1.0}), folder / "two.csv")
    write(pd.DataFrame({"symbol": "AAA", "ts": days, "text": "a"}), folder / "three.csv")
    answer = cli.json("columns")
    other, same = answer["columns"]
    assert other["remarks"] == ["no stored bar has a value: compare its symbols and dates"]
    assert same["remarks"][:2] == ["it is 1 at every bar", "1 of 2 assets have no value at any bar"]
    ((path, why),) = answer["refused"].items()
    assert path.endswith("three.csv")
    assert "column text holds text, such as " in why
    shown = cli("columns")
    assert "same: it is 1 at every bar" in shown.out
    assert "left out: " in shown.out


def test_a_run_names_the_column_that_there_is_not(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strategies").mkdir(mode=0o755)
    monkeypatch.setenv("BACKTEST_STRATEGIES", str(tmp_path / "strategies"))
    (tmp_path / "strategies" / "scored.toml").write_text(blocks(PAGE, "toml")[0])
    answer = cli("run", "--strategy", "scored", "--asset", "S-ALPHA")
    assert answer.code == 1
    assert "scored.toml:7: columns.score: unknown column 'score'" in answer.message
    assert "columns of your own: none" in answer.message
    checked = cli.json("strategies", "check", "scored")
    assert checked["invented"] == ["score"]
