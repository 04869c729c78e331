"""Jobs: assets and checks that run together, specs executed at once, and queued jobs.

The job of a single asset is named after it, as `leaderboard_job` (Dagster gives the plain name to
the asset's op), the job of a check after the check, and a schedule after what it runs.
"""

import dagster as dg

from backtest_pipeline.defs.ops import add_source_assets, execute_spec, work_on_job
from backtest_pipeline.defs.processes.launched_runs import PLANS_JOB, PORTFOLIOS_JOB

_SECOND_OPINION = dg.AssetSelection.checks(
    dg.AssetCheckKey(dg.AssetKey("backtests"), "second_opinion")
)
_REPLAY = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("backtests"), "replay"))
refresh_job = dg.define_asset_job(
    "refresh",
    # Built features or an external table alike. The two checks have jobs of their own: importing
    # vectorbt, or this package in a fresh process, takes longer than the refresh itself.
    selection=dg.AssetSelection.assets("backtests").upstream().materializable()
    - _SECOND_OPINION
    - _REPLAY,
    executor_def=dg.in_process_executor,
    description="Refreshes bars, features, signals and backtests of the selected assets and "
    "timeframes, in one run.",
)
walk_forward_job = dg.define_asset_job(
    "walk_forward_job",
    selection=dg.AssetSelection.assets("walk_forward"),
    executor_def=dg.in_process_executor,
    description="Runs walk-forwards on the stored features of the selected assets and timeframes.",
)
second_opinion_job = dg.define_asset_job(
    "second_opinion",
    selection=_SECOND_OPINION,
    executor_def=dg.in_process_executor,
    description="Gives vectorbt the orders of each new backtest and compares sizes and returns.",
)
replay_job = dg.define_asset_job(
    "replay",
    selection=_REPLAY,
    executor_def=dg.in_process_executor,
    description="Replays a sample of the stored backtests on the code that made them.",
)
look_ahead_job = dg.define_asset_job(
    "look_ahead",
    selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("signals"), "look_ahead")),
    executor_def=dg.in_process_executor,
    description="Tests features and signals for look-ahead; the weekly schedule draws a new sample "
    "of assets and cut-off dates each time.",
)
portfolio_rollups_job = dg.define_asset_job(
    "portfolio_rollups_job",
    selection=dg.AssetSelection.assets("portfolio_rollups"),
    executor_def=dg.in_process_executor,
    description="Builds portfolios of the stored backtests.",
)
cross_sections_job = dg.define_asset_job(
    "cross_sections_job",
    selection=dg.AssetSelection.assets("cross_sections"),
    executor_def=dg.in_process_executor,
    description="Ranks the universe of each timeframe by the cross-sections of the folder of "
    "strategies.",
)
plans_job = dg.define_asset_job(
    PLANS_JOB,
    selection=dg.AssetSelection.assets("strategy_plans", "planned_backtests"),
    executor_def=dg.in_process_executor,
    description="Plans the plan books of single symbols where a request waits, and runs backtests "
    "under their plans.",
)
planned_portfolios_job = dg.define_asset_job(
    PORTFOLIOS_JOB,
    selection=dg.AssetSelection.assets("planned_portfolios"),
    executor_def=dg.in_process_executor,
    description="Plans the plan books of several symbols where a request waits, and runs "
    "backtests under their plans.",
)

leaderboard_job = dg.define_asset_job(
    "leaderboard_job",
    selection=dg.AssetSelection.assets("leaderboard"),
    executor_def=dg.in_process_executor,
    description="Ranks all current runs on a new leaderboard.",
)
restatements_job = dg.define_asset_job(
    "restatements_job",
    selection=dg.AssetSelection.assets("restatements"),
    executor_def=dg.in_process_executor,
    description="Finds features that changed after runs had used them, and measures the effect on "
    "those runs.",
)
retention_job = dg.define_asset_job(
    "retention_job",
    selection=dg.AssetSelection.assets("retention"),
    executor_def=dg.in_process_executor,
    description="Deletes results past the retention period that are neither pinned nor needed by "
    "other results.",
)
negative_controls_job = dg.define_asset_job(
    "negative_controls_job",
    selection=dg.AssetSelection.assets("negative_controls"),
    executor_def=dg.in_process_executor,
    description="Runs the strategy search on random markets without an edge, to measure its "
    "false-positive rate.",
)


@dg.job(
    name="requested",
    executor_def=dg.in_process_executor,
    description="Makes one attempt at a requested job, a row of the table backtest_jobs.",
)
def requested_job() -> None:
    work_on_job()


@dg.job(
    name="add_assets",
    executor_def=dg.in_process_executor,
    description="Adds a Dagster partition for each new symbol of the bar source, as the sensor "
    "source_assets does while Dagster's daemon runs.",
)
def add_assets_job() -> None:
    add_source_assets()


@dg.job(
    name="execute",
    executor_def=dg.in_process_executor,
    description="Executes one spec, exactly as Python, the command line and the service do.",
)
def execute_job() -> None:
    execute_spec()
