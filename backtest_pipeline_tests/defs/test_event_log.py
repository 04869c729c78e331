"""Planned materializations written as one batch are Dagster's; errors tell no secret."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from backtest_pipeline.storage.database import Database
from backtest_pipeline.storage.logs import hide_secrets

KEYS = ["a", "b", "c", "d"]
OURS = ("backtest_pipeline.defs.event_log", "BatchingEventLogStorage")
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
def instance_with(database: Database, module: str, name: str) -> Iterator[dg.DagsterInstance]:
    """An instance with this event log."""

    def storage(module: str, name: str) -> dict[str, Any]:
        config = {"postgres_url": database.dagster_url()}
        return {"module": module, "class": name, "config": config}

    overrides = {
        "run_storage": storage("dagster_postgres.run_storage", "PostgresRunStorage"),
        "event_log_storage": storage(module, name),
        "schedule_storage": storage("dagster_postgres.schedule_storage", "PostgresScheduleStorage"),
        "telemetry": {"enabled": False},
        "python_logs": {"managed_python_loggers": ["backtest_pipeline"]},
    }
    with dg.instance_for_test(overrides=overrides) as instance:
        yield instance


def run_with(database: Database, module: str, name: str) -> str:
    """One range run on such an instance; the id of the run."""
    with instance_with(database, module, name) as instance:
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


def test_the_same_rows_are_stored(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "500")
    theirs = run_with(database, "dagster_postgres.event_log", "PostgresEventLogStorage")
    ours = run_with(database, *OURS)
    expected = rows_of(database, theirs)
    assert sum(row[0] == "ASSET_MATERIALIZATION_PLANNED" for row in expected) == 2 * len(KEYS)
    assert rows_of(database, ours) == expected


@dg.asset
def careless(context: dg.AssetExecutionContext) -> None:
    logging.getLogger("backtest_pipeline.theirs").error("no answer from %s", _SECRET_DSN)
    context.log.warning("trying again: %s", _SECRET_DSN)
    try:
        raise ConnectionError(_SECRET_DSN)
    except ConnectionError as error:
        raise ValueError(f"key btp_{_CANARY} of {_CANARY}") from error


def test_no_secret_of_a_failing_run_comes_to_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", _SECRET_DSN)
    hide_secrets()
    with instance_with(database, *OURS) as instance:
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
