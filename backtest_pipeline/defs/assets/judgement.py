"""What the runs are worth together: the leaderboard, and the pipeline's own false-positive rate."""

import dagster as dg

from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
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

_LEADERBOARD = table_schema(
    ("board_id", "text", "follows from the runs, the gates, the code and what the ledger counts"),
    ("run_id", "uuid", ""),
    ("rank", "integer", "by dsr; NULL where `unranked` says why"),
    ("unranked", "text", "why a run has no rank"),
    ("signal_name", "text", "strategy with its parameters"),
    ("symbol", "text", "asset"),
    ("tf", "text", "timeframe"),
    ("dsr", "double", "deflated Sharpe ratio after all trials of the strategy in the ledger"),
    ("dsr_effective", "double", "the same for the effective number of trials, the lenient bound"),
    ("dsr_across_families", "double", "1 - n_families * (1 - dsr), at least 0"),
    ("psr", "double", "probabilistic Sharpe ratio, as if there were no other run"),
    ("n_trials", "integer", "configurations of the strategy in the ledger"),
    ("cost_share", "double", "costs / (profit + costs)"),
    ("scores", "jsonb", "composite scores by scheme"),
    ("gates", "jsonb", "whether each gate is passed"),
    ("passed", "boolean", "whether all gates are passed"),
)
_NEGATIVE_CONTROLS = table_schema(
    ("control_id", "text", "follows from the question, the bars and the code"),
    ("world", "text", "random_walk or shuffled_bars"),
    ("seed", "bigint", ""),
    ("n_searches", "integer", "worlds, each searched once"),
    ("n_naive", "integer", "searches whose best run has a PSR of at least 0.95"),
    ("n_in_family", "integer", "searches with a DSR of at least 0.95 within a family"),
    ("n_significant", "integer", "the same, corrected for choosing among families"),
    ("n_passed", "integer", "searches with a run that passes all gates"),
    ("rate", "double", "n_significant / n_searches"),
    ("run_rate", "double", "strategies on a world whose best run has a DSR of at least 0.95"),
    ("walk_forward_rate", "double", "walk-forwards that passed"),
    ("upper_bound", "double", "of the rate, one-sided, 95 % (Clopper-Pearson)"),
)


class LeaderboardConfig(dg.Config):
    """By which gates runs are judged."""

    gates: str = DEFAULT_GATES
    late_gates: bool = False


class NegativeControlsConfig(dg.Config):
    """How much is searched where nothing is to be found."""

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
    metadata={"dagster/column_schema": _LEADERBOARD, "dagster/table_name": "leaderboard"},
    description="All current runs, ranked by deflated Sharpe ratio, with composite scores and "
    "gates that were registered before the runs.",
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
        "dagster/column_schema": _NEGATIVE_CONTROLS,
        "dagster/table_name": "negative_controls",
    },
    description="The whole search in worlds without an edge: how often luck is called significant.",
)
def negative_controls(
    config: NegativeControlsConfig, store: WorkspaceResource
) -> dg.MaterializeResult:
    controls = Controls(config.searches, config.n_bars, config.seed, config.gates)
    rows = run_negative_controls(store.workspace, controls)
    return dg.MaterializeResult(metadata=of_summary(controls_summary(rows)))
