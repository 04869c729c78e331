"""Jobs: the selections of assets and checks that run together, and those that are no assets."""

import dagster as dg

from backtest_pipeline.defs.ops import execute_spec, work_on_job

_SECOND_OPINION = dg.AssetSelection.checks(
    dg.AssetCheckKey(dg.AssetKey("backtests"), "second_opinion")
)
_REPLAY = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("backtests"), "replay"))
refresh_job = dg.define_asset_job(
    "refresh",
    # Whatever way features come. Importing vectorbt for its opinion, or all of ours in a fresh
    # process, takes longer than all of the computing.
    selection=dg.AssetSelection.assets("backtests").upstream().materializable()
    - _SECOND_OPINION
    - _REPLAY,
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
    selection=_SECOND_OPINION,
    executor_def=dg.in_process_executor,
    description="Replays a sample of the stored backtests in vectorbt.",
)
replay_job = dg.define_asset_job(
    "replay_runs",
    selection=_REPLAY,
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


@dg.job(
    name="requested",
    executor_def=dg.in_process_executor,
    description="One attempt at a job that was requested; see backtest_jobs.",
)
def requested_job() -> None:
    work_on_job()


@dg.job(
    name="execute",
    executor_def=dg.in_process_executor,
    description="One spec, as Python, the command line and the service execute it.",
)
def execute_job() -> None:
    execute_spec()
