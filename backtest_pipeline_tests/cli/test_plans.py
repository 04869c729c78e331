"""Plan books on the command line: added, planned, looked at, planned again and removed."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from backtest_pipeline.cli.console import rows_table
from backtest_pipeline.cli.plans import _show_changes
from backtest_pipeline.pipeline.planning.plan_changes import PlanChanges
from backtest_pipeline.pipeline.planning.replan_now import replan_now
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.pipeline.planning.stores import refreshed, without_last
from backtest_pipeline_tests.sql import count, execute_sql


@pytest.fixture
def planned(cli: CommandLine) -> CommandLine:
    """A command line on a store with bars and a book, without plans."""
    workspace = Workspace(cli.database, ArtifactStore.of(load_settings()))
    refreshed(workspace, without_last(5))
    added = cli(
        "plans", "book", "add", "core", "--symbols", "S-ALPHA", "--option", "stop_loss_pct=7"
    )
    assert "plan book core: S-ALPHA at 1D, planned by rules" in added.out
    return cli


def test_a_book_is_planned_run_compared_and_removed(planned: CommandLine) -> None:
    cli = planned
    assert "has no plan yet" in cli("plans", "list", "core").out
    made = cli.json("plans", "replan", "core")
    assert made["reasons"] == ["initial_plan", "manual"]
    assert made["plans"] == made["sequence"] > 1
    (run,) = made["runs"]
    detail = cli.json("plans", "list", "core")
    assert len(detail["plans"]) == made["plans"]
    assert {row["status"] for row in detail["requests"]} == {"planned"}
    shown = cli("plans", "show", "core", "2").out
    assert detail["plans"][1]["plan_id"] in shown
    changes = cli.json("plans", "diff", "core", "1", "2")
    assert (changes["before"], changes["after"]) == (1, 2)
    assert changes["replan_reasons"] == detail["plans"][1]["replan_reasons"]
    assert "triggers are in both" in cli("plans", "diff", "core", "1", "2").out
    listed = cli("plans", "list", "core").out
    assert "initial_plan" in listed
    assert "plan book core has no plan 999" in cli("plans", "show", "core", "999").message

    results = cli.json("runs", "show", run["run_id"])["results"]["limit_enforcement"]
    for by in ("reason", "trigger", "symbol", "side", "day"):
        rows = cli.json("blocks", run["run_id"], "--by", by)["rows"]
        assert sum(row["count"] for row in rows) == results["total"]
    assert "'mood'" in cli("blocks", run["run_id"], "--by", "mood").message

    again = cli("plans", "replan", "core")
    assert f"nothing would change, so plan {made['sequence']} stays in force" in again.out
    assert "is asked for" in cli("plans", "replan", "core", "--later").out
    assert "waiting: manual" in cli("plans", "list", "core").out
    assert "is removed" in cli("plans", "book", "remove", "core").out
    assert cli.json("plans", "book", "list") == {"books": []}
    assert count(cli, "plan_log") > 0


def test_a_table_that_is_too_wide_keeps_its_first_column_whole() -> None:
    row = {
        "day": "2022-08-14",
        "count": 3,
        "first (UTC)": "2022-08-14 00:00",
        "newest": "x y " * 60,
    }
    written = StringIO()
    page = Console(width=60, file=written)
    page.print(rows_table("Blocked", [row, {**row, "day": "2022-08-15"}]))
    shown = written.getvalue()
    assert "2022-08-14" in shown
    assert "2022-08-15" in shown
    assert "\u2026" not in shown


def test_a_long_field_of_a_difference_is_told_from_its_value(capsys: pytest.CaptureFixture) -> None:
    fields = {"stance": ("wait", None), "limits.max_portfolio_exposure_pct": (100.0, None)}
    _show_changes("core", PlanChanges(1, 2, ("", ""), ("new_day",), fields, (), (), 0))
    assert "limits.max_portfolio_exposure_pct  100.0 -> null" in capsys.readouterr().out


def test_what_cannot_be_a_book_is_refused_with_the_reason(planned: CommandLine) -> None:
    def refused(*arguments: str) -> str:
        answer = planned("plans", "book", "add", *arguments)
        assert answer.code == 1
        return " ".join(answer.message.split())

    assert "a plan book core already" in refused("core", "--symbols", "S-ALPHA")
    assert "NOPE" in refused("other", "--symbols", "NOPE")
    assert "strategist" in refused("other", "--symbols", "S-ALPHA", "--strategist", "oracle")
    unknown = refused("other", "--symbols", "S-ALPHA", "--option", "mood=good")
    assert "unknown option of strategist rules 'mood'" in unknown
    assert "did you mean valid_days" in refused(
        "b", "--symbols", "S-ALPHA", "--when", "valid_day=3"
    )
    assert "valid_days" in refused("other", "--symbols", "S-ALPHA", "--when", "valid_days=0.1")
    assert "expected name=value" in refused("other", "--symbols", "S-ALPHA", "--when", "x")
    assert "core" in planned("plans", "list", "cor").message


def test_a_replan_in_this_process_says_why_there_is_no_run(planned: CommandLine) -> None:
    execute_sql(planned, "UPDATE plan_books SET start = '2025-12-26'")
    workspace = Workspace(planned.database, ArtifactStore.of(load_settings()))
    told = replan_now(workspace, "core", "ann")
    (run,) = told["runs"]
    assert run["run_id"] is None
    assert "fewer than 2 bars" in run["why"]
