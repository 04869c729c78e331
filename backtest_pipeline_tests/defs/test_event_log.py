"""Planned materializations, written as one batch, are what Dagster writes one by one."""

from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from backtest_pipeline.storage.database import Database

KEYS = ["a", "b", "c", "d"]
letters = dg.StaticPartitionsDefinition(KEYS)


@dg.asset(partitions_def=letters, backfill_policy=dg.BackfillPolicy.single_run())
def first(context: dg.AssetExecutionContext) -> None:
    context.log.debug("%s", context.partition_keys)


@dg.asset(partitions_def=letters, backfill_policy=dg.BackfillPolicy.single_run(), deps=[first])
def second(context: dg.AssetExecutionContext) -> None:
    context.log.debug("%s", context.partition_keys)


def run_with(database: Database, module: str, name: str) -> str:
    """One range run on an instance with this event log; the id of the run."""

    def storage(module: str, name: str) -> dict[str, Any]:
        config = {"postgres_url": database.dagster_url()}
        return {"module": module, "class": name, "config": config}

    overrides = {
        "run_storage": storage("dagster_postgres.run_storage", "PostgresRunStorage"),
        "event_log_storage": storage(module, name),
        "schedule_storage": storage("dagster_postgres.schedule_storage", "PostgresScheduleStorage"),
        "telemetry": {"enabled": False},
    }
    with dg.instance_for_test(overrides=overrides) as instance:
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
    ours = run_with(database, "backtest_pipeline.defs.event_log", "BatchingEventLogStorage")
    expected = rows_of(database, theirs)
    assert sum(row[0] == "ASSET_MATERIALIZATION_PLANNED" for row in expected) == 2 * len(KEYS)
    assert rows_of(database, ours) == expected
