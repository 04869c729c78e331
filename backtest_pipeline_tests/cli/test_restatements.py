"""`backtest-pipeline restatements`: what it prints of history that was changed."""

from __future__ import annotations

from pathlib import Path

from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, put, write


def refreshed(cli: CommandLine, path: Path) -> None:
    answer = cli("refresh", "--timeframes", "1D", "--bars", path)
    assert answer.code == 0, answer.err


def test_a_restated_close_is_listed_with_what_it_moved(cli: CommandLine, tmp_path: Path) -> None:
    path = write(daily_bars(), tmp_path / "bars.csv")
    refreshed(cli, path)
    quiet = cli("restatements")
    assert quiet.code == 0
    assert "no bar used by a run has changed since" in quiet.out

    write(put(daily_bars(), "close", 82.0, slice(50, 51)), path)
    refreshed(cli, path)
    found = cli("restatements")
    assert "1 rewritten partitions compared, 1 of them restated, 6 runs compared" in found.out
    assert "2024-02-20" in found.out
    (row,) = cli.json("restatements", "--assets", "AAA")["restatements"]
    assert row["timeframe"] == "1D"
    assert row["why"] == "other bars"
    assert row["most moved"] != 0
    assert row["signal"]
    assert cli.json("restatements", "--assets", "BBB")["restatements"] == []
