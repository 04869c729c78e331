"""Jobs, schedules and sensors: new symbols become partitions, refreshes and audits run on time."""

import dagster as dg

from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
    assets_partitions,
    register_partitions,
    timeframes_partitions,
)
from backtest_pipeline.defs.resources import SourceResource

SECOND_OPINION = dg.AssetSelection.checks(
    dg.AssetCheckKey(dg.AssetKey("backtests"), "second_opinion")
)
REPLAY = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("backtests"), "replay"))
refresh_job = dg.define_asset_job(
    "refresh",
    # Built features or an external table alike. The two checks have jobs of their own: importing
    # vectorbt, or this package in a fresh process, takes longer than the refresh itself.
    selection=dg.AssetSelection.assets("backtests").upstream().materializable()
    - SECOND_OPINION
    - REPLAY,
    executor_def=dg.in_process_executor,
    description="Refreshes bars, features, signals and backtests of the selected assets and "
    "timeframes, in one run.",
)
walk_forward_job = dg.define_asset_job(
    "walk_forwards",
    selection=dg.AssetSelection.assets("walk_forward"),
    executor_def=dg.in_process_executor,
    description="Runs walk-forwards on the stored features of the selected assets and timeframes.",
)
second_opinion_job = dg.define_asset_job(
    "second_opinion",
    selection=SECOND_OPINION,
    executor_def=dg.in_process_executor,
    description="Recomputes a sample of the stored backtests with vectorbt and compares returns.",
)
replay_job = dg.define_asset_job(
    "replay_runs",
    selection=REPLAY,
    executor_def=dg.in_process_executor,
    description="Replays a sample of the stored backtests on the code that made them.",
)
look_ahead_job = dg.define_asset_job(
    "probe_look_ahead",
    selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("signals"), "look_ahead")),
    executor_def=dg.in_process_executor,
    description="Tests features and signals for look-ahead; the weekly schedule draws a new sample "
    "of assets and cut-off dates each time.",
)
rollup_job = dg.define_asset_job(
    "rollup",
    selection=dg.AssetSelection.assets("portfolio_rollups"),
    executor_def=dg.in_process_executor,
    description="Builds portfolios of the stored backtests.",
)

leaderboard_job = dg.define_asset_job(
    "rank_runs",
    selection=dg.AssetSelection.assets("leaderboard"),
    executor_def=dg.in_process_executor,
    description="Ranks all current runs on a new leaderboard.",
)
restatements_job = dg.define_asset_job(
    "watch_history",
    selection=dg.AssetSelection.assets("restatements"),
    executor_def=dg.in_process_executor,
    description="Finds features that changed after runs had used them, and measures the effect on "
    "those runs.",
)
retention_job = dg.define_asset_job(
    "remove_old_results",
    selection=dg.AssetSelection.assets("retention"),
    executor_def=dg.in_process_executor,
    description="Deletes results past the retention period that are neither pinned nor needed by "
    "other results.",
)
negative_controls_job = dg.define_asset_job(
    "search_no_edge",
    selection=dg.AssetSelection.assets("negative_controls"),
    executor_def=dg.in_process_executor,
    description="Runs the strategy search on random markets without an edge, to measure its "
    "false-positive rate.",
)


@dg.sensor(
    name="source_assets",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a Dagster partition for each new symbol of the bar source.",
)
def source_assets(context: dg.SensorEvaluationContext, source: SourceResource) -> dg.SkipReason:
    new = register_partitions(context.instance, source.source().symbols())
    return dg.SkipReason(f"added {', '.join(new)}" if new else "no new symbol in the bar source")


@dg.schedule(
    name="nightly_refresh",
    job=refresh_job,
    cron_schedule="10 0 * * *",
    execution_timezone="UTC",
    description="Refreshes all assets and timeframes in one run, ten minutes after the UTC day "
    "ends.",
)
def nightly_refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    return _everything(context)


@dg.schedule(
    name="weekly_walk_forward",
    job=walk_forward_job,
    cron_schedule="10 3 * * 6",
    execution_timezone="UTC",
    description="Runs walk-forwards over all assets and timeframes; stored folds are reused, only "
    "new ones are computed.",
)
def weekly_walk_forward(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    return _everything(context)


def _everything(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """A request for one run over all assets and timeframes; skipped while there are no assets."""
    assets = assets_partitions.get_partition_keys(dynamic_partitions_store=context.instance)
    if not assets:
        return dg.SkipReason(
            "no assets yet: turn on the sensor source_assets, which adds those of the bar source"
        )
    timeframes = timeframes_partitions.get_partition_keys()
    return dg.RunRequest(
        run_key=context.scheduled_execution_time.isoformat(),
        tags={
            RANGE_START: f"{assets[0]}|{timeframes[0]}",
            RANGE_END: f"{assets[-1]}|{timeframes[-1]}",
        },
    )


nightly_leaderboard = dg.ScheduleDefinition(
    name="nightly_leaderboard",
    job=leaderboard_job,
    cron_schedule="10 2 * * *",
    execution_timezone="UTC",
    description="Ranks all current runs, two hours after the nightly refresh.",
)
nightly_restatements = dg.ScheduleDefinition(
    name="nightly_restatements",
    job=restatements_job,
    cron_schedule="40 1 * * *",
    execution_timezone="UTC",
    description="Looks for restated history after the nightly refresh.",
)
nightly_retention = dg.ScheduleDefinition(
    name="nightly_retention",
    job=retention_job,
    cron_schedule="10 4 * * *",
    execution_timezone="UTC",
    description="Deletes old results after the night's other jobs have used them.",
)
weekly_negative_controls = dg.ScheduleDefinition(
    name="weekly_negative_controls",
    job=negative_controls_job,
    cron_schedule="10 5 * * 1",
    execution_timezone="UTC",
    description="Measures the false-positive rate of the strategy search on markets without an "
    "edge.",
)


@dg.schedule(
    name="weekly_look_ahead",
    job=look_ahead_job,
    cron_schedule="40 6 * * 1",
    execution_timezone="UTC",
    description="Repeats the look-ahead test on a new sample of assets and cut-off dates, also for "
    "code that passed before.",
)
def weekly_look_ahead(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    at = context.scheduled_execution_time
    config = {"afresh": True, "seed": int(at.timestamp()) // (7 * 86_400)}
    return dg.RunRequest(
        run_key=at.isoformat(), run_config={"ops": {"signals_look_ahead": {"config": config}}}
    )


weekly_second_opinion = dg.ScheduleDefinition(
    name="weekly_second_opinion",
    job=second_opinion_job,
    cron_schedule="10 6 * * 1",
    execution_timezone="UTC",
    description="Recomputes a sample of the stored backtests with vectorbt.",
)


nightly_replay = dg.ScheduleDefinition(
    name="nightly_replay",
    job=replay_job,
    cron_schedule="40 1 * * *",
    execution_timezone="UTC",
    description="Replays a sample of the stored backtests before they are ranked.",
)


@dg.asset_sensor(
    asset_key=dg.AssetKey("backtests"),
    name="rollup_after_backtests",
    job=rollup_job,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Rebuilds the portfolios of all timeframes whenever backtests were stored.",
)
def rollup_after_backtests(
    _context: dg.SensorEvaluationContext, asset_event: dg.EventLogEntry
) -> dg.RunRequest:
    timeframes = timeframes_partitions.get_partition_keys()
    return dg.RunRequest(
        run_key=asset_event.run_id,
        tags={RANGE_START: timeframes[0], RANGE_END: timeframes[-1]},
    )
