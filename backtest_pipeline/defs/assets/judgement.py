"""The assets `leaderboard` (all runs ranked) and `negative_controls` (the false-positive rate)."""

import dagster as dg

from backtest_pipeline.defs.assets.stages import OWNERS
from backtest_pipeline.defs.assets.table_schemas import LEADERBOARD, NEGATIVE_CONTROLS
from backtest_pipeline.defs.metadata import of_summary
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.pipeline.audits.negative_controls import (
    Controls,
    controls_summary,
    run_negative_controls,
)
from backtest_pipeline.pipeline.ranking.leaderboard import (
    DEFAULT_GATES,
    leaderboard_summary,
    publish_leaderboard,
)
from backtest_pipeline.pipeline.versions import LEADERBOARD_CODE, negative_controls_code


class LeaderboardConfig(dg.Config):
    """The gate set that runs have to pass."""

    gates: str = DEFAULT_GATES
    late_gates: bool = False


class NegativeControlsConfig(dg.Config):
    """How many random markets without an edge are searched, and how long they are."""

    searches: int = 1000
    n_bars: int = 1461
    seed: int = 0
    gates: str = DEFAULT_GATES


@dg.asset(
    deps=["backtests"],
    group_name="research",
    kinds={"postgres"},
    owners=OWNERS,
    code_version=LEADERBOARD_CODE,
    metadata={"dagster/column_schema": LEADERBOARD, "dagster/table_name": "leaderboard"},
    description="All current runs ranked by deflated Sharpe ratio, with composite scores and the "
    "gates they pass; gates are registered before the runs they judge.",
)
def leaderboard(config: LeaderboardConfig, store: WorkspaceResource) -> dg.MaterializeResult:
    board = publish_leaderboard(store.workspace, gates=config.gates, late_gates=config.late_gates)
    return dg.MaterializeResult(metadata=of_summary(leaderboard_summary(board)))


@dg.asset(
    deps=["bars"],
    group_name="research",
    kinds={"postgres"},
    owners=OWNERS,
    code_version=negative_controls_code(),
    metadata={
        "dagster/column_schema": NEGATIVE_CONTROLS,
        "dagster/table_name": "negative_controls",
    },
    description="The whole strategy search on random markets without an edge: how often it calls "
    "luck significant.",
)
def negative_controls(
    config: NegativeControlsConfig, store: WorkspaceResource
) -> dg.MaterializeResult:
    controls = Controls(config.searches, config.n_bars, config.seed, config.gates)
    rows = run_negative_controls(store.workspace, controls)
    return dg.MaterializeResult(metadata=of_summary(controls_summary(rows)))
