"""`backup` and `restore` from the command line."""

from __future__ import annotations

from pathlib import Path

from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.sql import execute_sql

COMMAND = ("run", "--signal", "ema_9_21", "--asset", "AAA", "--tf", "1D")


def test_a_store_is_backed_up_and_replaced(cli: CommandLine, tmp_path: Path) -> None:
    bars = write(daily_bars(), tmp_path / "bars.csv")
    assert cli(*COMMAND, "--bars", bars).code == 0
    files = {path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()}
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
    path, before = tmp_path / "b.tar.zst", cli.stored()

    made = cli.json("backup", path)
    assert (made["path"], made["unsound"]) == (str(path), [])
    assert made["artifacts"] > 0
    again = cli("backup", path)
    assert again.code == 1
    assert again.message.startswith(f"{path} exists; name a file that does not")

    execute_sql(cli, "DELETE FROM signals")
    refused = cli("restore", path)
    assert refused.code == 1
    assert "holds a store; restore into an empty database, or" in refused.message
    restored = cli("restore", path, "--replace")
    assert restored.code == 0, restored.err
    assert f"tables into {cli.database.where}, {made['artifacts']} files" in restored.out
    assert cli.stored() == before
    assert cli(*COMMAND, "--bars", bars).code == 0
