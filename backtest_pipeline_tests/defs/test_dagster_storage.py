"""Events of partitions written together are Dagster's; what is stored of a run holds no secret."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import isfunction
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from backtest_pipeline.defs.dagster_storage import BatchingEventLogStorage
from backtest_pipeline.defs.event_log.partition_log import PartitionLog
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings

KEYS = ["a", "b", "c", "d"]
_CANARY = "SECRET-CANARY"
_SECRET_DSN = f"postgresql://me:{_CANARY}@db.example/x"
letters = dg.StaticPartitionsDefinition(KEYS)


@dg.asset(partitions_def=letters, backfill_policy=dg.BackfillPolicy.single_run())
def first(context: dg.AssetExecutionContext) -> None:
    context.log.debug("%s", context.partition_keys)


@dg.asset(partitions_def=letters, backfill_policy=dg.BackfillPolicy.single_run(), deps=[first])
def second(context: dg.AssetExecutionContext) -> None:
    context.log.debug("%s", context.partition_keys)


@contextmanager
def instance_with(database: Database, folder: Path, *, ours: bool) -> Iterator[dg.DagsterInstance]:
    """The instance of the project; or one of Dagster's own storage, which stores the same."""
    if ours:
        with open_instance(load_settings(home=folder), database) as instance:
            yield instance
        return
    overrides = {"storage": {"postgres": {"postgres_url": database.dagster_url()}}}
    with dg.instance_for_test(overrides=overrides) as instance:
        yield instance


def run_with(database: Database, folder: Path, *, ours: bool) -> str:
    """One range run on such an instance; the id of the run."""
    with instance_with(database, folder, ours=ours) as instance:
        job = dg.Definitions([first, second]).resolve_implicit_global_asset_job_def()
        tags = {
            "dagster/asset_partition_range_start": "a",
            "dagster/asset_partition_range_end": "d",
        }
        run = job.execute_in_process(instance=instance, tags=tags)
        assert run.success
        for asset in (first, second):
            assert instance.get_materialized_partitions(asset.key) == set(KEYS)
        return run.run_id


def rows_of(database: Database, run_id: str) -> list[tuple[Any, ...]]:
    query = sa.text("""
        SELECT dagster_event_type, asset_key, partition, step_key, count(*)
        FROM dagster.event_logs WHERE run_id = :run_id
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    """)
    with database.begin() as connection:
        return [tuple(row) for row in connection.execute(query, {"run_id": run_id})]


def transactions_of(database: Database, run_id: str) -> dict[str, int]:
    """In how many transactions the events of partitions were written, by their type."""
    query = sa.text("""
        SELECT dagster_event_type, count(DISTINCT xmin::text)
        FROM dagster.event_logs WHERE run_id = :run_id
            AND dagster_event_type LIKE 'ASSET_MATERIALIZATION%' GROUP BY 1
    """)
    with database.begin() as connection:
        return {row[0]: row[1] for row in connection.execute(query, {"run_id": run_id})}


def test_dagster_s_rows_are_stored_in_a_transaction_for_many(
    database: Database, tmp_path: Path
) -> None:
    """What is private of Dagster still works: a version where it does not fails here.

    The rows are Dagster's, but that those of all partitions that are planned of an asset are one.
    """
    theirs = run_with(database, tmp_path, ours=False)
    ours = run_with(database, tmp_path, ours=True)
    kinds = ("ASSET_MATERIALIZATION", "ASSET_MATERIALIZATION_PLANNED")
    expected = rows_of(database, theirs)
    planned = [row for row in expected if row[0] == kinds[1]]
    assert len(planned) == 2 * len(KEYS)
    together = [(kinds[1], f'["{name}"]', None, name, 1) for name in ("first", "second")]
    others = [row for row in expected if row not in planned]
    assert sorted(rows_of(database, ours), key=str) == sorted(others + together, key=str)
    assert transactions_of(database, theirs) == dict.fromkeys(kinds, 2 * len(KEYS))
    assert transactions_of(database, ours) == {kinds[0]: 2, kinds[1]: 1}


@contextmanager
def connections() -> Iterator[list[object]]:
    """Those of Dagster's driver that are opened meanwhile."""
    opened: list[object] = []

    def note(connection: object, _: object) -> None:
        if type(connection).__module__.startswith("psycopg2"):
            opened.append(connection)

    event.listen(sa.Pool, "connect", note)
    try:
        yield opened
    finally:
        event.remove(sa.Pool, "connect", note)


def test_all_that_the_log_is_asked_for_outlasts_a_lost_connection() -> None:
    own = {n for n, of in vars(PartitionLog).items() if isfunction(of) and not n.startswith("_")}
    assert {"reported", "newest_ids", "runs_with_plans", "planned_by", "take_from_plan"} < own
    assert {n for n in own if hasattr(getattr(BatchingEventLogStorage, n), "__wrapped__")} == own


def test_a_lost_connection_is_repeated_for_what_this_package_asks(
    database: Database, tmp_path: Path
) -> None:
    asset = dg.AssetKey("first")
    with instance_with(database, tmp_path, ours=True) as instance:
        log = instance.event_log_storage
        assert isinstance(log, PartitionLog)
        for ask, expected in (
            (lambda: log.reported(asset, KEYS), {}),
            (lambda: log.newest_ids(asset, KEYS), {}),
            (lambda: log.runs_with_plans(asset, 0), []),
            (lambda: log.planned_by(asset, 0, ["x"]), {}),
            (lambda: log.take_from_plan("x", asset, KEYS), None),
        ):
            with first_statement_lost(database) as lost:
                assert ask() == expected
            assert len(lost) == 1


@contextmanager
def first_statement_lost(database: Database) -> Iterator[list[object]]:
    """The server ends the connection of Dagster's driver that is the first to ask something."""
    lost: list[object] = []

    def end(connection: sa.Connection, cursor: Any, *_: object) -> None:
        if lost or not type(cursor).__module__.startswith("psycopg2"):
            return
        pid = connection.connection.dbapi_connection.info.backend_pid  # pyright: ignore
        lost.append(pid)
        with database.begin() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    event.listen(sa.Engine, "before_cursor_execute", end)
    try:
        yield lost
    finally:
        event.remove(sa.Engine, "before_cursor_execute", end)


def test_a_storage_keeps_its_connections(database: Database, tmp_path: Path) -> None:
    run_with(database, tmp_path, ours=True)  # makes the tables
    with connections() as theirs:
        run_with(database, tmp_path, ours=False)
    with connections() as ours:
        run_with(database, tmp_path, ours=True)
    # Each storage looks for its tables on one, and keeps two.
    assert len(ours) <= 3 * (1 + 2) < len(theirs)


@contextmanager
def plain_log_records() -> Iterator[None]:
    """Python's own, whatever an earlier test of the command line has left."""
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


@dg.asset
def careless(context: dg.AssetExecutionContext) -> None:
    logging.getLogger("backtest_pipeline.theirs").error("no answer from %s", _SECRET_DSN)
    context.log.warning("trying again: %s", _SECRET_DSN)
    try:
        raise ConnectionError(_SECRET_DSN)
    except ConnectionError as error:
        raise ValueError(f"key btp_{_CANARY} of {_CANARY}") from error


def test_no_secret_of_a_failing_run_comes_to_the_database(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the program around it has its own log records."""
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", _SECRET_DSN)
    with plain_log_records(), instance_with(database, tmp_path, ours=True) as instance:
        job = dg.Definitions([careless]).resolve_implicit_global_asset_job_def()
        run = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not run.success
    with database.begin() as connection:
        tables = connection.execute(
            sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'dagster'")
        )
        rows = {name: f"SELECT t::text FROM dagster.{name} t" for name in tables.scalars().all()}
        told = {
            name: connection.execute(sa.text(query)).scalars().all() for name, query in rows.items()
        }
    events = "\n".join(told["event_logs"])
    for line in ("no answer from", "trying again", "ConnectionError", "ValueError"):
        assert line in events
    assert "postgresql://me:***@db.example/x" in events
    assert not [table for table, rows in told.items() if any(_CANARY in row for row in rows)]
