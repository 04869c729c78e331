"""Sensors: new partitions, jobs, roll-ups and replans to launch, and runs that are dead."""

import time

import dagster as dg

from backtest_pipeline.defs.automation.declared import as_sensor
from backtest_pipeline.defs.jobs import (
    planned_portfolios_job,
    plans_job,
    portfolio_rollups_job,
    requested_job,
)
from backtest_pipeline.defs.ops import add_assets_of
from backtest_pipeline.defs.partitions import (
    RANGE_START,
    follow_timeframes,
    partitions_of,
    register_partitions,
    timeframe_ranges,
)
from backtest_pipeline.defs.processes.launched_runs import (
    REPLANS_SENSOR,
    books_under_way,
    follow_requests,
    launched_runs,
    replan_request,
    replan_runs,
    run_request,
)
from backtest_pipeline.defs.processes.leased_runs import fail_dead_runs
from backtest_pipeline.defs.resources import SourceResource
from backtest_pipeline.market.errors import SchemaNotMigrated
from backtest_pipeline.pipeline.jobs.requests import reconcile
from backtest_pipeline.pipeline.planning.due_replans import (
    note_triggers,
    replans_to_launch,
    stale_runs,
)
from backtest_pipeline.pipeline.use_cases.timeframes import project_timeframes
from backtest_pipeline.storage.postgres.migrations import opened
from backtest_pipeline.storage.settings import load_settings

BACKTESTS = dg.AssetKey("backtests")


@dg.sensor(**as_sensor("source_assets"))
def source_assets(context: dg.SensorEvaluationContext, source: SourceResource) -> dg.SkipReason:
    return dg.SkipReason(add_assets_of(context.instance, source))


@dg.sensor(**as_sensor("store_timeframes"))
def store_timeframes(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    settings = load_settings()
    try:
        with opened(settings) as database:
            names = project_timeframes(database, settings.timeframes)
    except SchemaNotMigrated as error:
        return dg.SkipReason(str(error))
    new, gone = follow_timeframes(context.instance, names)
    changes = [f"{did} {', '.join(of)}" for did, of in (("added", new), ("deleted", gone)) if of]
    return dg.SkipReason("; ".join(changes) or "no timeframe was added or removed")


@dg.sensor(job=portfolio_rollups_job, **as_sensor("portfolio_rollups_after_backtests"))
def portfolio_rollups_after_backtests(
    context: dg.SensorEvaluationContext,
) -> dg.SensorResult | dg.SkipReason:
    instance = context.instance
    records = instance.fetch_materializations(BACKTESTS, limit=1).records
    since = int(context.cursor or 0)
    if not records or records[0].storage_id <= since:
        return dg.SkipReason("no backtests were stored since the last rollup was requested")
    newest = records[0].storage_id
    run = instance.get_run_by_id(records[0].run_id)
    if run is not None and not run.is_finished:
        return dg.SkipReason(f"run {run.run_id} is still storing backtests")
    stored = instance.get_materialized_partitions(
        BACKTESTS, after_cursor=since, before_cursor=newest + 1
    )
    known = set(instance.get_dynamic_partitions("timeframe"))
    timeframes = {partition.timeframe for partition in partitions_of(stored)} & known
    requests = [
        dg.RunRequest(run_key=f"{newest}/{tags[RANGE_START]}", tags=tags)
        for tags in timeframe_ranges(instance, timeframes)
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(newest))


@dg.sensor(job=requested_job, **as_sensor("requested_jobs"))
def requested_jobs(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    try:
        with opened(load_settings()) as database:
            attempts_to_launch = reconcile(
                database, lambda attempts: launched_runs(context.instance, attempts)
            )
    except SchemaNotMigrated as error:
        return dg.SkipReason(str(error))
    if not attempts_to_launch:
        return dg.SkipReason("no jobs are waiting")
    return dg.SensorResult(run_requests=[run_request(attempt) for attempt in attempts_to_launch])


@dg.sensor(jobs=[plans_job, planned_portfolios_job], **as_sensor(REPLANS_SENSOR))
def replans(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    # Without a cursor: which triggers were seen, and which are answered, is in their rows.
    instance = context.instance
    try:
        with opened(load_settings()) as database:
            new = note_triggers(database)
            to_launch = replans_to_launch(database, lambda waiting: replan_runs(instance, waiting))
            stale = stale_runs(database)
    except SchemaNotMigrated as error:
        return dg.SkipReason(str(error))
    if not to_launch and not stale:
        return dg.SkipReason(f"{new} new triggers; nothing is to be launched")
    busy = books_under_way(instance)
    stale = [run for run in stale if run.book.name not in busy]
    for replan in to_launch:
        register_partitions(instance, replan.symbols, replan.timeframes)
    for run in stale:
        register_partitions(instance, run.book.symbols, [run.timeframe])
    following = follow_requests(instance, stale, time.time())
    return dg.SensorResult(run_requests=[*map(replan_request, to_launch), *following])


@dg.sensor(**as_sensor("dead_runs"))
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    try:
        with opened(load_settings()) as database:
            dead = fail_dead_runs(context.instance, database)
    except SchemaNotMigrated as error:
        return dg.SkipReason(str(error))
    return dg.SkipReason("; ".join(map(str, dead)) or "no run is dead")
