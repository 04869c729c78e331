"""What happens by itself: assets of the source become partitions, and a nightly refresh."""

import dagster as dg

from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
    assets_partitions,
    register_partitions,
    timeframes_partitions,
)
from backtest_pipeline.defs.resources import SourceResource
from backtest_pipeline.market.partitions import usable_symbols

_MOST_TOLD = 5

SECOND_OPINION = dg.AssetSelection.checks(
    dg.AssetCheckKey(dg.AssetKey("backtests"), "second_opinion")
)
REPLAY = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("backtests"), "replay"))
refresh_job = dg.define_asset_job(
    "refresh",
    # Whatever way features come. Importing vectorbt for its opinion, or all of ours in a fresh
    # process, takes longer than all of the computing.
    selection=dg.AssetSelection.assets("backtests").upstream().materializable()
    - SECOND_OPINION
    - REPLAY,
    executor_def=dg.in_process_executor,
    description="Bars to backtests for a rectangle of assets and timeframes, in one run.",
)
walk_forward_job = dg.define_asset_job(
    "walk_forwards",
    selection=dg.AssetSelection.assets("walk_forward"),
    executor_def=dg.in_process_executor,
    description="Walk-forwards of the stored features for a rectangle of assets and timeframes.",
)
second_opinion_job = dg.define_asset_job(
    "second_opinion",
    selection=SECOND_OPINION,
    executor_def=dg.in_process_executor,
    description="Replays a sample of the stored backtests in vectorbt.",
)
replay_job = dg.define_asset_job(
    "replay_runs",
    selection=REPLAY,
    executor_def=dg.in_process_executor,
    description="Computes a sample of the stored backtests again, on the code that made them.",
)
look_ahead_job = dg.define_asset_job(
    "probe_look_ahead",
    selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("signals"), "look_ahead")),
    executor_def=dg.in_process_executor,
    description="Probes features and signals for look-ahead, on other assets and cuts each week.",
)
rollup_job = dg.define_asset_job(
    "rollup",
    selection=dg.AssetSelection.assets("portfolio_rollups"),
    executor_def=dg.in_process_executor,
    description="Portfolios of the stored backtests.",
)

leaderboard_job = dg.define_asset_job(
    "rank_runs",
    selection=dg.AssetSelection.assets("leaderboard"),
    executor_def=dg.in_process_executor,
    description="Ranks all current runs.",
)
restatements_job = dg.define_asset_job(
    "watch_history",
    selection=dg.AssetSelection.assets("restatements"),
    executor_def=dg.in_process_executor,
    description="Compares what was rewritten with what runs had used.",
)
retention_job = dg.define_asset_job(
    "remove_old_results",
    selection=dg.AssetSelection.assets("retention"),
    executor_def=dg.in_process_executor,
    description="Removes results that are old, that nobody has pinned and that nothing needs.",
)
negative_controls_job = dg.define_asset_job(
    "search_no_edge",
    selection=dg.AssetSelection.assets("negative_controls"),
    executor_def=dg.in_process_executor,
    description="Searches worlds without an edge.",
)


@dg.sensor(
    name="source_assets",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition for each asset that the source has and Dagster does not know.",
)
def source_assets(context: dg.SensorEvaluationContext, source: SourceResource) -> dg.SkipReason:
    usable, left_out = usable_symbols(source.source().symbols())
    new = register_partitions(context.instance, usable)
    told = [f"added {', '.join(new)}" if new else "no new asset"]
    told += [f"left out: {sentence}" for sentence in left_out[:_MOST_TOLD]]
    if len(left_out) > _MOST_TOLD:
        told.append(f"and {len(left_out) - _MOST_TOLD} more like it")
    return dg.SkipReason("; ".join(told))


@dg.schedule(
    name="nightly_refresh",
    job=refresh_job,
    cron_schedule="10 0 * * *",
    execution_timezone="UTC",
    description="One run over all assets and timeframes, after the UTC day has ended.",
)
def nightly_refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    return _everything(context)


@dg.schedule(
    name="weekly_walk_forward",
    job=walk_forward_job,
    cron_schedule="10 3 * * 6",
    execution_timezone="UTC",
    description="Walk-forwards over all assets and timeframes; only folds that are new cost time.",
)
def weekly_walk_forward(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    return _everything(context)


def _everything(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One run over the rectangle of all assets and timeframes."""
    assets = assets_partitions.get_partition_keys(dynamic_partitions_store=context.instance)
    if not assets:
        return dg.SkipReason("no asset is known yet; the sensor source_assets adds them")
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
    description="Looks for restated history, after the nightly refresh.",
)
nightly_retention = dg.ScheduleDefinition(
    name="nightly_retention",
    job=retention_job,
    cron_schedule="10 4 * * *",
    execution_timezone="UTC",
    description="Removes old results, after the night's other work has looked at them.",
)
weekly_negative_controls = dg.ScheduleDefinition(
    name="weekly_negative_controls",
    job=negative_controls_job,
    cron_schedule="10 5 * * 1",
    execution_timezone="UTC",
    description="Measures how often the pipeline believes what is not there.",
)


@dg.schedule(
    name="weekly_look_ahead",
    job=look_ahead_job,
    cron_schedule="40 6 * * 1",
    execution_timezone="UTC",
    description="Probes code that was probed before on another sample of assets and cuts.",
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
    description="Asks vectorbt about a sample of the stored backtests.",
)


nightly_replay = dg.ScheduleDefinition(
    name="nightly_replay",
    job=replay_job,
    cron_schedule="40 1 * * *",
    execution_timezone="UTC",
    description="Computes a sample of the stored backtests again before they are ranked.",
)


@dg.asset_sensor(
    asset_key=dg.AssetKey("backtests"),
    name="rollup_after_backtests",
    job=rollup_job,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Forms the portfolios of all timeframes anew after backtests were stored.",
)
def rollup_after_backtests(
    _context: dg.SensorEvaluationContext, asset_event: dg.EventLogEntry
) -> dg.RunRequest:
    timeframes = timeframes_partitions.get_partition_keys()
    return dg.RunRequest(
        run_key=asset_event.run_id,
        tags={RANGE_START: timeframes[0], RANGE_END: timeframes[-1]},
    )
