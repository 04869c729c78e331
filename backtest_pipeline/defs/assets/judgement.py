"""The assets `leaderboard` (all runs ranked) and `negative_controls` (the false-positive rate)."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.defs.stored_events import StoredRows, result
from backtest_pipeline.pipeline.audits.negative_controls import (
    Controls,
    controls_summary,
    run_negative_controls,
)
from backtest_pipeline.pipeline.ranking.board_tables import leaderboard_summary
from backtest_pipeline.pipeline.ranking.leaderboard import (
    DEFAULT_GATES,
    StoredBoard,
    publish_leaderboard,
)
from backtest_pipeline.pipeline.versions import LEADERBOARD_CODE

_LEADERBOARD = table_schema(
    ("board_id", "text", "hash of the runs, the gates, the code and the ledger's trial counts"),
    ("run_id", "uuid", ""),
    ("rank", "integer", "by dsr; NULL for an unranked run, see `unranked`"),
    ("unranked", "text", "why the run has no rank"),
    ("signal_name", "text", "strategy with its parameters"),
    ("symbol", "text", "asset"),
    ("tf", "text", "timeframe"),
    ("dsr", "double", "deflated Sharpe ratio, for all trials of the strategy in the ledger"),
    ("dsr_effective", "double", "the same for the effective number of trials, a lenient bound"),
    ("dsr_across_families", "double", "1 - n_families * (1 - dsr), at least 0"),
    ("psr", "double", "probabilistic Sharpe ratio, not corrected for other trials"),
    ("n_trials", "integer", "configurations of the strategy in the ledger"),
    ("cost_share", "double", "costs / (profit + costs)"),
    ("scores", "jsonb", "composite scores by scheme"),
    ("gates", "jsonb", "whether the run passes each gate"),
    ("passed", "boolean", "whether the run passes all gates"),
)
_NEGATIVE_CONTROLS = table_schema(
    ("control_id", "text", "hash of the settings, the bars and the code"),
    ("world", "text", "random_walk or shuffled_bars"),
    ("planted", "double", "true yearly Sharpe ratio of the planted edge, 0 for none"),
    ("seed", "bigint", ""),
    ("n_searches", "integer", "random markets, each searched once"),
    ("n_naive", "integer", "searches whose best run has a PSR of at least 0.95"),
    ("n_in_family", "integer", "searches with a DSR of at least 0.95 within a family"),
    ("n_significant", "integer", "the same, corrected for choosing the best of all families"),
    ("n_passed", "integer", "searches with a run that passes all gates"),
    ("rate", "double", "n_significant / n_searches"),
    ("run_rate", "double", "share of strategies whose best run has a DSR of at least 0.95"),
    ("walk_forward_rate", "double", "share of walk-forwards that passed"),
    ("n_declared_passed", "integer", "walk-forwards that pass if declared beforehand"),
    ("upper_bound", "double", "one-sided 95 % upper bound of the rate (Clopper-Pearson)"),
)


class LeaderboardConfig(dg.Config):
    """The gate set that runs have to pass."""

    gates: str = DEFAULT_GATES
    late_gates: bool = False


class NegativeControlsConfig(dg.Config):
    """How many random markets are searched, how long they are, and what edges are planted too."""

    searches: int = 1000
    n_bars: int = 1461
    seed: int = 0
    gates: str = DEFAULT_GATES
    planted: list[float] = Field(default_factory=list)


@dg.asset(
    deps=["backtests"],
    io_manager_key="stages",
    group_name="research",
    kinds={"postgres"},
    owners=OWNERS,
    code_version=LEADERBOARD_CODE,
    metadata={"dagster/column_schema": _LEADERBOARD, "dagster/table_name": "leaderboard"},
    description="All current runs ranked by deflated Sharpe ratio, with composite scores and the "
    "gates they pass; gates are registered before the runs they judge. "
    "Materialize after backtests; the table says what each of the best fails.",
)
def leaderboard(config: LeaderboardConfig, store: WorkspaceResource) -> dg.MaterializeResult:
    board = publish_leaderboard(store.workspace, gates=config.gates, late_gates=config.late_gates)
    return result(leaderboard_rows(board))


def leaderboard_rows(board: StoredBoard) -> StoredRows:
    """What is stored of a leaderboard."""
    about = of_summary(leaderboard_summary(board))
    return StoredRows(None, board.about["board_id"], len(board.rows), about)


@dg.asset(
    deps=["bars"],
    io_manager_key="stages",
    group_name="research",
    kinds={"postgres"},
    owners=OWNERS,
    metadata={
        "dagster/column_schema": _NEGATIVE_CONTROLS,
        "dagster/table_name": "negative_controls",
    },
    description="The whole strategy search on random markets without an edge: how often it calls "
    "luck significant. "
    "Materialize weekly; a rate above the allowed one means that the search is too kind.",
)
def negative_controls(
    config: NegativeControlsConfig, store: WorkspaceResource
) -> dg.MaterializeResult:
    controls = Controls(
        config.searches, config.n_bars, config.seed, config.gates, tuple(config.planted)
    )
    return result(negative_controls_rows(run_negative_controls(store.workspace, controls)))


def negative_controls_rows(rows: Sequence[Mapping[str, Any]]) -> StoredRows:
    """What is stored of negative controls, the rows of one run of them."""
    about = of_summary(controls_summary(rows))
    return StoredRows(None, rows[0]["control_id"], len(rows), about)
