"""Sensors: symbols and timeframes become partitions, jobs and roll-ups start, dead runs fail."""

import dagster as dg

from backtest_pipeline.defs.jobs import requested_job, rollup_job
from backtest_pipeline.defs.launched_runs import launched_runs, run_request
from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
    follow_timeframes,
    register_partitions,
)
from backtest_pipeline.defs.processes.leased_runs import fail_dead_runs
from backtest_pipeline.defs.resources import SourceResource
from backtest_pipeline.market.errors import SchemaNotMigrated
from backtest_pipeline.market.partitions import usable_symbols
from backtest_pipeline.pipeline.jobs.requests import reconcile
from backtest_pipeline.pipeline.use_cases.timeframes import project_timeframes
from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.postgres.migrations import check
from backtest_pipeline.storage.settings import load_settings

_MOST_NAMED = 5


@dg.sensor(
    name="source_assets",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a Dagster partition for each new symbol of the bar source.",
)
def source_assets(context: dg.SensorEvaluationContext, source: SourceResource) -> dg.SkipReason:
    usable, left_out = usable_symbols(source.source().symbols())
    new = register_partitions(context.instance, usable)
    parts = [f"added {', '.join(new)}" if new else "no new symbol in the bar source"]
    parts += [f"left out: {sentence}" for sentence in left_out[:_MOST_NAMED]]
    if len(left_out) > _MOST_NAMED:
        parts.append(f"and {len(left_out) - _MOST_NAMED} more like it")
    return dg.SkipReason("; ".join(parts))


@dg.sensor(
    name="store_timeframes",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps the partitions by timeframe as BACKTEST_TIMEFRAMES and the store name them.",
)
def store_timeframes(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    settings = load_settings()
    database = open_database(settings)
    try:
        check(database)
        names = project_timeframes(database, settings.timeframes)
    except SchemaNotMigrated as error:
        return dg.SkipReason(str(error))
    finally:
        database.close()
    new, gone = follow_timeframes(context.instance, names)
    changes = [f"{did} {', '.join(of)}" for did, of in (("added", new), ("deleted", gone)) if of]
    return dg.SkipReason("; ".join(changes) or "no timeframe was added or removed")


@dg.asset_sensor(
    asset_key=dg.AssetKey("backtests"),
    name="rollup_after_backtests",
    job=rollup_job,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Rebuilds the portfolios of all timeframes whenever backtests were stored.",
)
def rollup_after_backtests(
    context: dg.SensorEvaluationContext, asset_event: dg.EventLogEntry
) -> dg.RunRequest:
    timeframes = context.instance.get_dynamic_partitions("timeframe")
    return dg.RunRequest(
        run_key=asset_event.run_id,
        tags={RANGE_START: timeframes[0], RANGE_END: timeframes[-1]},
    )


@dg.sensor(
    name="requested_jobs",
    job=requested_job,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches requested jobs, and relaunches those whose worker was lost.",
)
def requested_jobs(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    database = open_database(load_settings())
    try:
        check(database)
        attempts_to_launch = reconcile(
            database, lambda attempts: launched_runs(context.instance, attempts)
        )
    except SchemaNotMigrated as error:  # skipped, or every tick would fail until somebody migrates
        return dg.SkipReason(str(error))
    finally:
        database.close()
    if not attempts_to_launch:
        return dg.SkipReason("no jobs are waiting")
    return dg.SensorResult(run_requests=[run_request(attempt) for attempt in attempts_to_launch])


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs failed whose command was killed.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    database = open_database(load_settings())
    try:
        check(database)
        dead = fail_dead_runs(context.instance, database)
    except SchemaNotMigrated as error:
        return dg.SkipReason(str(error))
    finally:
        database.close()
    return dg.SkipReason("; ".join(map(str, dead)) or "no run is dead")
