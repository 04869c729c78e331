"""Trimming Dagster's log leaves what it says of assets as it was."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.loader import LoadingContextForTest
from dagster._core.scheduler.instigation import InstigatorType, TickData, TickStatus
from pydantic import Field

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.external import watermark_sensor
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.dagster_log import OWN_SENSORS, trim_log
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.sql import column, count, execute_sql, scalar

LETTERS = dg.StaticPartitionsDefinition(["a", "b", "c"])
SINGLE = dg.BackfillPolicy.single_run()


class Partly(dg.Config):
    failing: list[str] = Field(default=[])


@dg.asset(partitions_def=LETTERS, code_version="1", backfill_policy=SINGLE)
def many(context: dg.AssetExecutionContext, config: Partly) -> None:
    for key in context.partition_keys:
        if key not in config.failing:
            context.log_event(dg.AssetMaterialization("many", partition=key))
    cast("dict[str, str]", context.run.tags)["dagster/defer_asset_events"] = "true"
    if config.failing:
        raise dg.Failure("some failed", allow_retries=False)


class Upstream(dg.Config):
    version: str = "1"
    fails: bool = False


@dg.asset(partitions_def=LETTERS, code_version="1")
def upstream(config: Upstream) -> dg.MaterializeResult:
    if config.fails:
        raise dg.Failure("it fails")
    return dg.MaterializeResult(data_version=dg.DataVersion(config.version))


@dg.asset(partitions_def=LETTERS, deps=[upstream], code_version="1")
def same_partition() -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion("s"))


@dg.asset(deps=[upstream], code_version="1")
def of_all_partitions() -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion("o"))


@dg.asset_check(asset=of_all_partitions)
def is_fine() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


DEFINITIONS = dg.Definitions(
    [upstream, same_partition, of_all_partitions, many], asset_checks=[is_fine]
)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def database(dagster_database: Database) -> Database:
    """One that has Dagster's tables already."""
    return dagster_database


@pytest.fixture
def instance(database: Database, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(load_settings(home=tmp_path), database) as instance:
        yield instance


def run(instance: dg.DagsterInstance, asset: str, key: str | None = None, **config: object) -> str:
    """Materialize one partition; the id of the run."""
    job = DEFINITIONS.resolve_implicit_global_asset_job_def()
    ops = {"ops": {asset: {"config": config}}} if config else {}
    result = job.get_subset(asset_selection={dg.AssetKey(asset)}).execute_in_process(
        {**QUIET, **ops}, instance=instance, partition_key=key, raise_on_error=False
    )
    return result.run_id


def run_range(instance: dg.DagsterInstance, first: str, last: str, **config: object) -> None:
    job = DEFINITIONS.resolve_implicit_global_asset_job_def()
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    job.get_subset(asset_selection={many.key}).execute_in_process(
        {**QUIET, "ops": {"many": {"config": config}}},
        instance=instance,
        tags=tags,
        raise_on_error=False,
    )


def standing(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What Dagster says of the assets, judged anew."""
    log = instance.event_log_storage
    log.wipe_asset_cached_status(upstream.key)
    graph = DEFINITIONS.resolve_asset_graph()
    judge = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    keys = [(asset.key, key) for asset in (upstream, same_partition) for key in "abc"]
    summary = instance.get_latest_asset_check_evaluation_record(is_fine.check_key)
    return {
        "stale": {f"{a.to_user_string()} {k}": judge.get_status(a, k).value for a, k in keys},
        "stale of all": judge.get_status(of_all_partitions.key).value,
        "materialized": {
            asset.key: instance.get_materialized_partitions(asset.key)
            for asset in (upstream, same_partition)
        },
        "failed": set(
            log.get_latest_asset_partition_materialization_attempts_without_materializations(
                upstream.key
            )
        ),
        "check": summary and summary.status,
    }


def trim(database: Database, days: float = 1, *, now: datetime | None = None) -> dict[str, int]:
    later = (now or datetime.now(UTC)) + timedelta(days=30)
    with database.begin() as connection:
        return trim_log(connection, later - timedelta(days=days))


def test_how_assets_stand_is_kept_of_however_old_runs(
    database: Database, instance: dg.DagsterInstance
) -> None:
    for key in "abc":
        run(instance, "upstream", key)
    for key in "ab":
        run(instance, "same_partition", key)
    run(instance, "of_all_partitions")
    for _ in range(3):  # the same data again: what was made from it is not stale
        run(instance, "upstream", "a")
    run(instance, "upstream", "b", version="2")  # other data: it is
    run(instance, "upstream", "c", version="9", fails=True)
    before = standing(instance)
    assert before["stale"]["same_partition a"] == "FRESH"
    assert before["stale"]["same_partition b"] == "STALE"
    assert before["failed"] == {"c"}
    events = count(database, "dagster.event_logs")

    removed = trim(database)
    assert removed["dagster_events"] > events / 2
    assert removed["dagster_runs"] > 0
    assert standing(instance) == before
    assert trim(database)["dagster_events"] == 0
    # And what comes next is judged rightly.
    run(instance, "same_partition", "b")
    assert standing(instance)["stale"]["same_partition b"] == "FRESH"
    run(instance, "upstream", "a", version="3")
    assert standing(instance)["stale"]["same_partition a"] == "STALE"


def test_partitions_that_were_planned_together_keep_how_they_failed(
    database: Database, instance: dg.DagsterInstance
) -> None:
    def shown() -> dict[str, str | None]:
        instance.event_log_storage.wipe_asset_cached_status(many.key)
        states = instance.get_status_by_partition(many.key, list("abc"), LETTERS) or {}
        return {key: state and state.value for key, state in states.items()}

    for _ in range(3):  # the last of these says how it stands
        run_range(instance, "a", "c", failing=["b", "c"])
    run_range(instance, "a", "b", failing=["a"])
    before = shown()
    assert before == {"a": "FAILED", "b": "MATERIALIZED", "c": "FAILED"}
    trim(database)
    assert shown() == before
    planned = "dagster.event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'"
    assert count(database, planned) == 2
    assert trim(database)["dagster_events"] == 0
    run_range(instance, "a", "c")
    trim(database)
    assert count(database, planned) == 0
    assert shown() == dict.fromkeys("abc", "MATERIALIZED")


@pytest.mark.parametrize(
    ("tags", "stays"),
    [
        ({"dagster/schedule_name": "daily_backfill"}, False),
        ({"dagster/sensor_name": "requested_jobs"}, False),
        ({"dagster/sensor_name": "one_of_mine"}, True),
    ],
)
def test_only_keys_of_sensors_of_ones_own_are_kept(
    database: Database, instance: dg.DagsterInstance, tags: dict[str, str], stays: bool
) -> None:
    first, _ = (run(instance, "upstream", "a") for _ in range(2))
    instance.add_run_tags(first, {"dagster/run_key": "key", **tags})
    trim(database)
    assert (instance.get_run_by_id(first) is not None) is stays


def test_the_sensors_of_the_package_are_known() -> None:
    requesting = {
        sensor.name
        for sensor in [*(build_definitions().sensors or ()), watermark_sensor]
        if isinstance(sensor, dg.SensorDefinition) and sensor.targets
    }
    assert set(OWN_SENSORS) == requesting - {"conditions"}


def test_what_is_young_or_under_way_is_left_alone(
    database: Database, instance: dg.DagsterInstance
) -> None:
    for _ in range(2):
        run(instance, "upstream", "a")
    assert set(trim(database, days=31).values()) == {0}
    execute_sql(database, "UPDATE dagster.runs SET status = 'STARTED', end_time = NULL")
    assert set(trim(database).values()) == {0}


def test_a_run_that_was_requested_under_a_key_is_found_for_ever(
    database: Database, instance: dg.DagsterInstance
) -> None:
    runs = [run(instance, "upstream", "a") for _ in range(3)]
    instance.add_run_tags(runs[0], {"dagster/run_key": "job 7, attempt 1"})
    trim(database)
    found = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": "job 7, attempt 1"}))
    assert [r.run_id for r in found] == [runs[0]]
    assert set(column(database, "SELECT run_id FROM dagster.runs")) == {runs[0], runs[2]}
    left = "SELECT count(*) FROM dagster.event_logs WHERE run_id = :run_id"
    assert scalar(database, left, run_id=runs[0]) < 5  # that it began and ended


def test_the_log_stops_growing(database: Database, instance: dg.DagsterInstance) -> None:
    sizes = []
    for _ in range(3):
        for _ in range(3):
            run(instance, "upstream", "a")
        trim(database)
        sizes.append([count(database, f"dagster.{t}") for t in ("event_logs", "runs", "snapshots")])
    assert sizes[0] == sizes[1] == sizes[2]


def test_no_table_of_dagster_grows_with_the_days(
    database: Database, instance: dg.DagsterInstance
) -> None:
    """Each day a run of a schedule that fails in part, its tick, a check and a backfill."""
    tables = column(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'dagster'")
    assert {"event_logs", "asset_event_tags", "job_ticks", "kvs", "bulk_actions"} <= set(tables)
    sizes = []
    for day in range(4):
        run_range(instance, "a", "c", failing=["b"])
        run(instance, "of_all_partitions")
        (newest,) = instance.get_runs(limit=1)
        keys = {"dagster/run_key": str(day), "dagster/schedule_name": "daily_backfill"}
        instance.add_run_tags(newest.run_id, keys)
        at = datetime.now(UTC).timestamp()
        tick = TickData(
            "schedule", "daily", InstigatorType.SCHEDULE, TickStatus.SUCCESS, at, [], []
        )
        instance.create_tick(tick)
        instance.add_backfill(
            PartitionBackfill(f"backfill{day}", BulkActionStatus.COMPLETED_SUCCESS, False, {}, at)
        )
        trim(database)
        sizes.append({name: count(database, f"dagster.{name}") for name in tables})
    assert sizes[-1] == sizes[-2]


def test_a_store_that_dagster_has_not_used_has_no_log(empty_database: Database) -> None:
    assert trim(empty_database) == {}
