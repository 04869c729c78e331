"""`backtest-pipeline runs ...` and `retention` on runs of a market in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, write


@pytest.fixture
def runs(cli: CommandLine, tmp_path: Path) -> list[str]:
    """Ids of the runs of a refresh, those of AAA at 1D."""
    path = write(daily_bars(), tmp_path / "bars.csv")
    assert cli("refresh", "--timeframes", "1D", "--bars", path).code == 0
    listed = cli.json("runs", "list", "--asset", "AAA")["runs"]
    return [run["run_id"] for run in listed]


def test_runs_are_listed_shown_compared_kept_taken_out_and_removed(
    cli: CommandLine, runs: list[str], tmp_path: Path
) -> None:
    assert len(runs) == 6
    one, two, three = (run[:8] for run in runs[:3])

    page = cli.json("runs", "list", "--limit", "4")
    rest = cli.json("runs", "list", "--after", page["next"])
    assert [r["run_id"] for r in (*page["runs"], *rest["runs"])][:6] == runs
    assert one in cli("runs", "list").out
    assert {run["synthetic"] for run in page["runs"]} == {False}
    assert "synthetic" not in cli("runs", "list").out
    for none in (("--user", "nobody"), ("--until", "2001-01-01"), ("--status", "failed")):
        assert "no run matches these filters" in cli("runs", "list", *none).out
    for wrong in (("--status", "running"), ("--after", "xyz")):
        answer = cli("runs", "list", *wrong)
        assert (answer.code, bool(answer.message)) == (1, True)

    shown = cli("runs", "show", one)
    assert f"on AAA|1D, run {runs[0]}: completed" in shown.out
    assert cli.json("runs", "show", one)["metrics"]["trade_count"] >= 0
    assert cli("runs", "show", "ffffffff").message.startswith("unknown run 'ffffffff'")

    traded = {run["run_id"]: run["strategy"] for run in (*page["runs"], *rest["runs"])}
    other = next(run for run in runs if traded[run] != traded[runs[0]])
    compared = cli("runs", "compare", one, other)
    assert "strategy" in compared.out
    assert "Code and environment: differences" in compared.out  # two strategies
    as_json = cli.json("runs", "compare", one, other)
    assert as_json["runs"] == [runs[0], other]
    assert "two or more different runs" in cli("runs", "compare", one, one).message

    for form, n in (("csv", 5), ("parquet", 5), ("bundle", 1)):
        answer = cli("runs", "export", one, "--to", tmp_path / form, "--format", form)
        assert answer.out.count("wrote ") == n, answer.err
    assert (
        "did you mean csv"
        in cli("runs", "export", one, "--to", tmp_path, "--format", "csw").message
    )

    assert cli("runs", "pin", one, two, "--note", "for the paper").out == "pinned 2 runs\n"
    assert "for the paper" in cli("runs", "show", one).out
    assert f"{runs[0]} is pinned" in cli("runs", "delete", one, "--yes").message
    assert cli("runs", "unpin", two).out == "unpinned 1 run\n"

    assert f"run {runs[2]} is of the last refresh of AAA|1D" in (
        cli("runs", "delete", three, "--yes").message
    )
    assert "nothing deleted" in cli("retention").out
    with cli.database.begin() as connection:
        connection.execute(
            sa.text("UPDATE backtest_runs SET completed_at = now() - interval '100 days'")
        )
        connection.execute(sa.text("DELETE FROM dataset_versions WHERE dataset = 'backtests'"))
        connection.execute(
            sa.text(
                "UPDATE portfolio_runs SET is_current = FALSE,"
                " completed_at = now() - interval '100 days'"
            )
        )
    assert "deleted 1 run" in cli("runs", "delete", three, "--yes").out
    assert "nothing to delete" in cli("retention", "--dry-run", "--days", "101").out
    before = cli.stored()
    rehearsed = cli.json("retention", "--dry-run")
    assert cli.stored() == before
    assert rehearsed["rows"]["runs"] == 4
    assert "Rows deleted" in cli("retention").out
    assert [r["run_id"] for r in cli.json("runs", "list")["runs"]] == [runs[0]]
    assert "days must be above 0" in cli("retention", "--days", "0").message
