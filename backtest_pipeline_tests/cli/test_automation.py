"""The command `automation`, on a store of its own."""

import json
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from backtest_pipeline.cli.main import app
from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.automation import switches
from backtest_pipeline.defs.automation.table import AUTOMATIONS, markdown
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.documents import ROOT


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["automation", *words])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


@pytest.fixture
def home(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BACKTEST_HOME", str(tmp_path))
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", database.conninfo)
    return tmp_path


def shown(*names: str) -> dict[str, bool]:
    rows = json.loads(run("status", *names, "--json"))["automation"]
    return {row["name"]: row["is_on"] for row in rows}


def test_schedules_and_sensors_are_turned_on_and_off(home: Path) -> None:
    at_first = {row.name: row.on for row in switches.of_this_store(is_external=False)}
    assert shown() == at_first
    assert "turned off: daily_backfill" in run("off", "daily_backfill")
    assert "were off already" in run("off", "daily_backfill")
    assert shown() == {**at_first, "daily_backfill": False}
    run("on")  # nothing was stopped by a plain `off`, so it is what a new store has
    assert shown() == at_first
    run("off", "nightly_retention")
    run("on", "conditions")
    own = {**at_first, "nightly_retention": False, "conditions": True}
    said = run("off")
    assert "requested_jobs: Launches requested jobs" in said
    assert "run_failures: Sends a notice of each failed run" in said
    assert not any(shown().values())
    run("on", "conditions")
    assert shown("conditions", "run_failures") == {"conditions": True, "run_failures": False}
    run("off")  # the second one forgets nothing
    run("off", "weekly_look_ahead")
    run("on")
    assert shown() == {**own, "weekly_look_ahead": False}
    text = run("status", "daily_backfill")
    assert "when: 20 0,1,2,4,8,16 * * * UTC" in text
    assert "next_tick: " in text
    assert "never" in run("status")


def test_a_receiver_that_is_dead_is_told(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_NOTIFY_WEBHOOK", "http://127.0.0.1:1/hook")
    assert "notices of failed runs" not in run("status")
    with database.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO run_notices (dagster_run_id, receiver, tries, problem)"
            " VALUES ('a', 'webhook', 10, 'the receiver answered 500')"
        )
    assert "1 given up after 10 tries (webhook: the receiver answered 500)" in " ".join(
        run("status").split()
    )


def test_an_unknown_name_is_refused_with_the_nearest(home: Path) -> None:
    result = CliRunner().invoke(app, ["automation", "off", "daily_backfil"])
    assert "daily_backfill" in str(result.exception)


def test_dagster_and_the_page_say_what_the_table_says() -> None:
    declared = build_definitions()
    found = {
        one.name: one.description
        for one in (*(declared.schedules or ()), *(declared.sensors or ()))
        if isinstance(one, dg.ScheduleDefinition | dg.SensorDefinition)
    }
    rows = switches.of_this_store(is_external=False)
    assert found == {row.name: row.description for row in rows}
    page = (ROOT / "docs/automation.md").read_text()
    assert markdown() in page
    assert len({row.name for row in AUTOMATIONS}) == len(AUTOMATIONS)
