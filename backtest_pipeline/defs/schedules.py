"""Schedules of every night and every week; those of backfills are in `automation/backfills.py`."""

from collections import Counter

import dagster as dg

from backtest_pipeline.defs.automation.declared import as_schedule
from backtest_pipeline.defs.jobs import (
    cross_sections_job,
    leaderboard_job,
    look_ahead_job,
    negative_controls_job,
    replay_job,
    restatements_job,
    retention_job,
    second_opinion_job,
    walk_forward_job,
)
from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
    partitions_of,
    timeframe_ranges,
)
from backtest_pipeline.pipeline.workspace import use_strategies
from backtest_pipeline.strategies.known_strategies import catalogue


@dg.schedule(job=walk_forward_job, **as_schedule("weekly_walk_forward"))
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


@dg.schedule(job=cross_sections_job, **as_schedule("nightly_cross_sections"))
def nightly_cross_sections(
    context: dg.ScheduleEvaluationContext,
) -> list[dg.RunRequest] | dg.SkipReason:
    use_strategies()
    if not catalogue().cross_sections:
        return dg.SkipReason("the folder of strategies has no cross-section")
    instance = context.instance
    stored = partitions_of(instance.get_materialized_partitions(dg.AssetKey("backtests")))
    n_assets = Counter(partition.timeframe for partition in stored)
    timeframes = {tf for tf in instance.get_dynamic_partitions("timeframe") if n_assets[tf] > 1}
    if not timeframes:
        return dg.SkipReason("no timeframe has stored backtests of two assets, which can be ranked")
    at = context.scheduled_execution_time.isoformat()
    return [
        dg.RunRequest(run_key=f"{at}/{tags[RANGE_START]}", tags=tags)
        for tags in timeframe_ranges(instance, timeframes)
    ]


nightly_leaderboard = dg.ScheduleDefinition(
    job=leaderboard_job, **as_schedule("nightly_leaderboard")
)
nightly_restatements = dg.ScheduleDefinition(
    job=restatements_job, **as_schedule("nightly_restatements")
)
nightly_retention = dg.ScheduleDefinition(job=retention_job, **as_schedule("nightly_retention"))
weekly_negative_controls = dg.ScheduleDefinition(
    job=negative_controls_job, **as_schedule("weekly_negative_controls")
)


@dg.schedule(job=look_ahead_job, **as_schedule("weekly_look_ahead"))
def weekly_look_ahead(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    at = context.scheduled_execution_time
    config = {"afresh": True, "seed": int(at.timestamp()) // (7 * 86_400)}
    return dg.RunRequest(
        run_key=at.isoformat(), run_config={"ops": {"signals_look_ahead": {"config": config}}}
    )


nightly_second_opinion = dg.ScheduleDefinition(
    job=second_opinion_job, **as_schedule("nightly_second_opinion")
)


nightly_replay = dg.ScheduleDefinition(job=replay_job, **as_schedule("nightly_replay"))
