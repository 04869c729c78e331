"""Schedules: what runs every night and every week."""

import dagster as dg

from backtest_pipeline.defs.jobs import (
    leaderboard_job,
    look_ahead_job,
    negative_controls_job,
    refresh_job,
    replay_job,
    restatements_job,
    retention_job,
    second_opinion_job,
    walk_forward_job,
)
from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
)


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
    """A request for one run over all assets and timeframes; skipped while there are none."""
    assets = context.instance.get_dynamic_partitions("asset")
    timeframes = context.instance.get_dynamic_partitions("timeframe")
    if not assets or not timeframes:
        return dg.SkipReason(
            "no assets or timeframes yet: turn on the sensors source_assets, which adds those of "
            "the bar source, and store_timeframes"
        )
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


nightly_second_opinion = dg.ScheduleDefinition(
    name="nightly_second_opinion",
    job=second_opinion_job,
    cron_schedule="20 1 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Gives vectorbt the orders of each backtest that it has not seen, after the "
    "nightly refresh. On from the start; without new backtests it imports nothing.",
)


nightly_replay = dg.ScheduleDefinition(
    name="nightly_replay",
    job=replay_job,
    cron_schedule="40 1 * * *",
    execution_timezone="UTC",
    description="Replays a sample of the stored backtests before they are ranked.",
)
