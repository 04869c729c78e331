"""What is removed goes whole, and what is published meanwhile is whole."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import ArtifactError, InvalidInput, RemovalHeldUp, RunNotFound
from backtest_pipeline.pipeline.runs.query import list_runs, pin, run_equity
from backtest_pipeline.pipeline.runs.retention import delete_runs, retain
from backtest_pipeline.pipeline.specs import RunSpec
from backtest_pipeline.pipeline.use_cases.backtest import backtest
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.removals import block_removals, lock_for_removal
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs
from backtest_pipeline_tests.own_columns import scores, with_columns
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS
from backtest_pipeline_tests.pipeline.runs.old_runs import (
    DAYS,
    add_job,
    clear,
    files,
    fill,
    filled,
    retained,
    run_id,
)
from backtest_pipeline_tests.sql import distinct, execute_sql
from backtest_pipeline_tests.waiting import LIMIT_S, Gate, until


def test_what_cannot_be_removed_keeps_its_rows_and_goes_the_next_time(shared: Workspace) -> None:
    @dataclass(frozen=True)
    class Refusing(ArtifactStore):
        def remove(self, uri: str) -> None:
            if uri in refused:
                raise ArtifactError(f"{uri} cannot be removed")
            super().remove(uri)

    filled(shared)
    rows = distinct(
        shared,
        "SELECT artifact_uri FROM backtest_runs WHERE completed_at < timestamptz '2025-08-01'",
    )
    refused = {sorted(rows)[0]}
    report = retained(replace(shared, artifacts=Refusing(shared.artifacts.root)))
    assert set(report.left) == refused
    assert (
        distinct(shared, "SELECT artifact_uri FROM backtest_runs WHERE deleting_since IS NOT NULL")
        == refused
    )
    retained(shared)
    assert not distinct(shared, "SELECT run_id FROM backtest_runs WHERE deleting_since IS NOT NULL")
    assert not any(uri.startswith(tuple(refused)) for uri in files(shared))


def test_runs_are_deleted_by_name_unless_they_have_to_stay(shared: Workspace) -> None:
    clear(shared)
    fill(shared, 6, per_folder=3)
    pin(shared, [run_id(0)], "ann")
    add_job(shared, "running", None, run_id(1))
    with pytest.raises(InvalidInput, match=rf"nothing was deleted.*{run_id(0)} is pinned"):
        delete_runs(shared, [run_id(0), run_id(2)])
    with pytest.raises(InvalidInput, match="is a result of job"):
        delete_runs(shared, [run_id(1)])
    with pytest.raises(RunNotFound):
        delete_runs(shared, [run_id(2), uuid.uuid4()])
    assert len(list_runs(shared).rows) == 6
    assert delete_runs(shared, [run_id(i) for i in (2, 3, 4, 5)]) == 4
    assert distinct(shared, "SELECT run_id FROM backtest_runs") == {run_id(0), run_id(1)}
    assert {uri for uri in files(shared) if uri.startswith("runs")} == {
        f"{uri}/{name}"
        for uri in distinct(shared, "SELECT artifact_uri FROM backtest_runs")
        for name in ("manifest.json", "equity.parquet")
    }


@dataclass(frozen=True)
class PausingStore(ArtifactStore):
    """A store that stops once, at a removal or a publication, until it may go on."""

    at: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def remove(self, uri: str) -> None:
        super().remove(uri)
        self._pause("remove", uri)

    def put_directory(
        self, uri: str, tables: Mapping[str, pa.Table], about: Mapping[str, Any]
    ) -> None:
        super().put_directory(uri, tables, about)
        self._pause("publish", uri)

    def _pause(self, what: str, uri: str) -> None:
        if what == self.at and uri.startswith("runs/") and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(LIMIT_S)


def _old_runs(workspace: Workspace) -> set[uuid.UUID]:
    """Real runs that retention may have, as of a partition that has to be computed again."""
    refresh(workspace, MARKET, PARTITIONS[:1])
    execute_sql(
        workspace, "UPDATE backtest_runs SET completed_at = completed_at - interval '1 year'"
    )
    execute_sql(workspace, "DELETE FROM dataset_versions WHERE dataset = 'backtests'")
    return distinct(workspace, "SELECT run_id FROM backtest_runs")


def _removers_waiting(workspace: Workspace) -> set[int]:
    """The server's processes whose clients were refused the lock, and will ask again."""
    return distinct(
        workspace,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'SELECT pg_try_advisory_xact_lock%' AND state = 'idle in transaction'",
    )


def test_writers_pass_while_retention_waits_for_a_backup(shared: Workspace) -> None:
    clear(shared)
    with ThreadPoolExecutor(1) as pool:
        with shared.database.begin() as backup:
            block_removals(backup)
            removing = pool.submit(retained, shared)
            until(lambda: _removers_waiting(shared))
            with shared.database.begin() as writer:
                writer.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
                block_removals(writer)
            with (
                shared.database.begin() as other,
                pytest.raises(RemovalHeldUp, match="a backup or other writers have kept"),
            ):
                lock_for_removal(other, most_s=0)
            assert not removing.done()
        removing.result(LIMIT_S)


@pytest.mark.parametrize("first", ["remove", "publish"])
def test_who_publishes_a_run_that_is_being_deleted_has_it_whole(
    workspace: Workspace, first: str
) -> None:
    runs = _old_runs(workspace)
    pausing = PausingStore(workspace.artifacts.root, at=first)
    stopped = replace(workspace, artifacts=pausing)
    other = Workspace(workspace.database, ArtifactStore(workspace.artifacts.root))

    def remove(store: Workspace) -> None:
        retain(store, days=DAYS)

    def publish(store: Workspace) -> None:
        reports = refresh(store, MARKET, PARTITIONS[:1], rebuild=True)
        assert not any(report.failed for report in reports.values())

    works = (remove, publish) if first == "remove" else (publish, remove)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(works[0], stopped)
        assert pausing.reached.wait(LIMIT_S)
        quick = pool.submit(works[1], other)
        if first == "remove":
            Gate(workspace.database).hold_up()
        else:
            until(lambda: _removers_waiting(workspace))
        assert not quick.done()
        pausing.go_on.set()
        slow.result(LIMIT_S)
        quick.result(LIMIT_S)
    reader = Workspace(workspace.database, ArtifactStore(workspace.artifacts.root))
    assert {row["run_id"] for row in list_runs(reader).rows} == runs
    for run in runs:
        assert len(run_equity(reader, run)) == 250


def test_columns_that_retention_removes_during_a_run_are_computed_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    market = StaticSource({"1D": daily_panel({"A": 400})})
    spec = RunSpec(symbol="A", strategy="scored", timeframe="1D")
    removed: list[int] = []

    def remove_columns(stage: str, done: int, total: int) -> None:
        if stage == "backtest" and not removed:
            when = "updated_at = now() - interval '1 year' WHERE dataset LIKE 'columns:%'"
            execute_sql(workspace, f"UPDATE dataset_versions SET {when}")
            when = when.replace("updated_at", "current_since")
            execute_sql(workspace, f"UPDATE dataset_snapshots SET {when}")
            removed.append(retain(workspace, days=DAYS).rows["column_sets"])

    with with_columns(workspace, tmp_path, {"model.csv": scores("A")}) as (store, _):
        made = backtest(replace(store, progress=remove_columns), market, spec, ["A"])
        with store.database.begin() as connection:
            (run,) = recorded_runs(connection, [made.runs[0]["run_id"]])
    assert removed == [1]
    assert run.snapshots.keys() == run.dataset_versions.keys() == {"A|1D", "A|1D|columns:model"}
