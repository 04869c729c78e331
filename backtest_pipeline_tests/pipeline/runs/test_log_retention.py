"""Retention of Dagster's log removes the output of the runs that have no log any more."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.runs.log_retention import retain_log
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.sql import count, execute_sql

OLD = "UPDATE dagster.runs SET end_time = end_time - 15 * 86400"


@dg.asset
def watched() -> None: ...


def test_output_goes_with_the_log_of_its_run(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "dagster" / "storage"
    with open_instance(load_settings(home=tmp_path), workspace.database) as instance:
        old = dg.materialize([watched], instance=instance).run_id
        execute_sql(workspace, OLD)
        new = dg.materialize([watched], instance=instance).run_id
    under_way, notes = str(uuid4()), folder / "notes"
    notes.mkdir(parents=True)
    for name in (old, new):
        (folder / name).mkdir(exist_ok=True)
        os.utime(folder / name, (0, 0))
    (folder / under_way).mkdir()  # written to just now: its run is about to be recorded
    os.utime(notes, (0, 0))
    before = count(workspace, "dagster.event_logs")

    planned = retain_log(workspace, folder, days=14, dry_run=True)
    assert (planned.folders, count(workspace, "dagster.event_logs")) == (1, before)
    done = retain_log(workspace, folder, days=14)
    assert (done.folders, done.rows) == (1, planned.rows)
    assert done.rows["dagster_runs"] == 1
    assert {path.name for path in folder.iterdir()} == {new, under_way, "notes"}
    assert retain_log(workspace, folder, days=14).rows == {}


def test_without_days_or_a_folder(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="days must be above 0"):
        retain_log(workspace, tmp_path, days=0)
    assert retain_log(workspace, tmp_path / "nowhere", days=1).folders == 0
