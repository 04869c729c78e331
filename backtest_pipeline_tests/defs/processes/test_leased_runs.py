"""A run whose process was killed is marked failed; one that lives or has ended is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.launcher import LAUNCHED
from backtest_pipeline.defs.processes.leased_runs import fail_dead_runs, leased, leased_run
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.sensors import dead_runs
from backtest_pipeline.storage.dagster_run_leases import take_lease
from backtest_pipeline.storage.doctor import examine
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.defs.running import QUIET
from backtest_pipeline_tests.pipeline.processes import started
from backtest_pipeline_tests.sql import count, execute_sql, rows
from backtest_pipeline_tests.waiting import until

LEASES = "dagster_run_leases"


@pytest.fixture
def database(dagster_database: Database) -> Database:
    """One that has Dagster's tables already."""
    return dagster_database


@pytest.fixture
def own_instance(store: Database, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """This project's instance on the database of the test."""
    with open_instance(load_settings(home=tmp_path), store) as instance:
        yield instance


def execute(
    database: Database, instance: dg.DagsterInstance, proceed: threading.Event
) -> dg.ExecuteInProcessResult:
    """What a command does, with a run that waits until it may proceed."""

    @dg.op
    def wait() -> None:
        proceed.wait()

    @dg.job(executor_def=dg.in_process_executor)
    def waiting() -> None:
        wait()

    with leased_run(database, "backtest-pipeline refresh") as run_id:
        return waiting.execute_in_process(QUIET, instance, run_id=run_id, raise_on_error=False)


def execute_for_ever(conninfo: str, home: Path) -> None:
    database = connect_database(conninfo)
    with open_instance(load_settings(home=home), database) as instance:
        execute(database, instance, threading.Event())


def the_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    (run,) = instance.get_runs()
    return run


def is_started(instance: dg.DagsterInstance) -> bool:
    return any(run.status is dg.DagsterRunStatus.STARTED for run in instance.get_runs())


def expire_all(database: Database) -> None:
    """As if the lease's length had passed without a renewal."""
    execute_sql(database, f"UPDATE {LEASES} SET lease_expires_at = now() - interval '1 s'")


def test_a_killed_run_is_marked_failed_once_its_lease_has_expired(
    store: Database, own_instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    process = started(execute_for_ever, store.conninfo, tmp_path)
    until(lambda: is_started(own_instance))
    process.kill()
    process.join()
    assert fail_dead_runs(own_instance, store) == []
    assert the_run(own_instance).status is dg.DagsterRunStatus.STARTED
    expire_all(store)

    (found,) = [f for f in examine(lambda: load_settings(home=tmp_path)) if "runs" in f.name]
    assert not found.ok
    assert f"run {the_run(own_instance).run_id} of `backtest-pipeline refresh`" in found.detail
    assert f"process {process.pid} on " in found.detail
    tick = dead_runs(dg.build_sensor_context(own_instance))
    assert isinstance(tick, dg.SkipReason)
    assert the_run(own_instance).run_id in str(tick.skip_message)
    assert the_run(own_instance).status is dg.DagsterRunStatus.FAILURE
    assert count(store, LEASES) == 0
    assert fail_dead_runs(own_instance, store) == []


def test_a_run_that_has_ended_stays_as_it_ended(
    store: Database, own_instance: dg.DagsterInstance
) -> None:
    proceed = threading.Event()
    proceed.set()
    result = execute(store, own_instance, proceed)
    assert result.success
    assert count(store, LEASES) == 0
    # Killed after its last event, before it gave the lease back; and before it made the run.
    for run_id in (result.run_id, "never-created"):
        execute_sql(
            store,
            f"INSERT INTO {LEASES} VALUES ('{run_id}', 'refresh', 'somebody', '2020-01-01')",
        )
    assert fail_dead_runs(own_instance, store) == []
    assert the_run(own_instance).status is dg.DagsterRunStatus.SUCCESS
    assert count(store, LEASES) == 0


def test_a_run_that_was_only_suspended_ends_as_it_does(
    store: Database, own_instance: dg.DagsterInstance
) -> None:
    proceed = threading.Event()
    ended: list[bool] = []
    thread = threading.Thread(
        target=lambda: ended.append(execute(store, own_instance, proceed).success)
    )
    thread.start()
    until(lambda: is_started(own_instance))
    marked: list[object] = []
    while not marked:  # it may renew its lease in between
        expire_all(store)
        marked = list(fail_dead_runs(own_instance, store))
    assert the_run(own_instance).status is dg.DagsterRunStatus.FAILURE
    proceed.set()
    thread.join()
    assert ended == [True]
    assert the_run(own_instance).status is dg.DagsterRunStatus.SUCCESS


def test_a_lease_is_renewed_while_its_run_goes_on(store: Database) -> None:
    query = f"{LEASES} WHERE lease_expires_at > now() + interval '1 min'"
    with leased(store, "a run", "backtest-pipeline refresh", lease_s=3600, beat_s=0.05):
        expire_all(store)
        until(lambda: count(store, query) == 1)


def test_whoever_comes_second_leaves_a_dead_run_to_the_first(
    store: Database, own_instance: dg.DagsterInstance
) -> None:
    execute_sql(store, f"INSERT INTO {LEASES} VALUES ('gone', 'refresh', 'somebody', '2020-01-01')")
    with store.begin() as first:
        first.exec_driver_sql(f"SELECT FROM {LEASES} FOR UPDATE")
        assert fail_dead_runs(own_instance, store) == []
        assert count(store, LEASES) == 1
    fail_dead_runs(own_instance, store)
    assert count(store, LEASES) == 0


@pytest.mark.parametrize(
    ("tags", "has_lease"),
    [({}, True), ({"dagster/code_location": "backtest_pipeline"}, False)],
    ids=["by Dagster's commands", "launched"],
)
def test_a_run_that_no_launcher_looks_after_is_leased_while_it_has_the_store(
    store: Database, tags: dict[str, str], has_lease: bool
) -> None:
    seen: list[list[tuple[str, str]]] = []

    @dg.op(required_resource_keys={"store"})
    def look(_) -> None:
        leases = rows(store, f"SELECT dagster_run_id AS run, command FROM {LEASES}")
        seen.append([(row["run"], row["command"]) for row in leases])

    @dg.job(executor_def=dg.in_process_executor, resource_defs={"store": WorkspaceResource()})
    def looking() -> None:
        look()

    with dg.DagsterInstance.ephemeral() as instance:
        run = looking.execute_in_process(QUIET, instance, tags=tags)
        assert seen.pop() == ([(run.run_id, "dagster")] if has_lease else [])
        assert count(store, LEASES) == 0
        if has_lease:  # that of a command of ours stays as it is
            with leased_run(store, "backtest-pipeline refresh") as run_id:
                looking.execute_in_process(QUIET, instance, run_id=run_id)
                assert seen.pop() == [(run_id, "backtest-pipeline refresh")]
                assert count(store, LEASES) == 1


ELSEWHERE = {
    "dagster/code_location": "backtest_pipeline",
    ".dagster/grpc_info": '{"host": "code-location", "port": 4000}',
}


def looking_at_its_lease(store: Database, seen: list[dict[str, object]]) -> dg.JobDefinition:
    @dg.op(required_resource_keys={"store"})
    def look(_) -> None:
        seen.extend(rows(store, f"SELECT command, holder FROM {LEASES}"))

    @dg.job(executor_def=dg.in_process_executor, resource_defs={"store": WorkspaceResource()})
    def looking() -> None:
        look()

    return looking


def test_a_run_that_was_launched_on_another_machine_is_leased_until_its_end_is_noted(
    store: Database, own_instance: dg.DagsterInstance
) -> None:
    run_id = str(uuid4())
    with store.begin() as connection:  # as the launcher does
        take_lease(connection, run_id, LAUNCHED, "code server on code-location", 180)
    seen: list[dict[str, object]] = []
    job = looking_at_its_lease(store, seen)
    result = job.execute_in_process(QUIET, own_instance, tags=ELSEWHERE, run_id=run_id)
    assert result.success
    assert [row["command"] for row in seen] == [LAUNCHED]
    assert "process" in str(seen[0]["holder"])  # its own by now
    assert count(store, LEASES) == 1
    assert fail_dead_runs(own_instance, store) == []
    assert count(store, LEASES) == 0
    assert the_run(own_instance).status is dg.DagsterRunStatus.SUCCESS


def test_a_run_on_another_machine_that_died_before_it_began_is_marked_failed(
    store: Database, own_instance: dg.DagsterInstance
) -> None:
    job = looking_at_its_lease(store, [])
    run = own_instance.create_run_for_job(job, tags=ELSEWHERE, status=dg.DagsterRunStatus.STARTED)
    with store.begin() as connection:
        take_lease(connection, run.run_id, LAUNCHED, "code server on code-location", 180)
    assert fail_dead_runs(own_instance, store) == []
    expire_all(store)
    (dead,) = fail_dead_runs(own_instance, store)
    assert "`dagster launcher` (code server on code-location) gave no sign of life" in str(dead)
    assert the_run(own_instance).status is dg.DagsterRunStatus.FAILURE
