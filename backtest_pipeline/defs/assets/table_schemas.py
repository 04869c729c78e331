"""Column schemas of what the assets own, made from the lists that the code works with."""

from __future__ import annotations

import dagster as dg

from backtest_pipeline.market.features import (
    EMA_PERIODS,
    FEATURE_COLUMNS,
    FEATURES,
    READ_COLUMNS,
)
from backtest_pipeline.research.validation.walk_forward import FOLD_METRICS
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS


def _schema(*columns: tuple[str, str, str]) -> dg.TableSchema:
    return dg.TableSchema(
        [dg.TableColumn(name, kind, description=about or None) for name, kind, about in columns]
    )


_DEFINITIONS = {feature.name: feature.definition for feature in FEATURES}

BARS = _schema(
    ("asset", "string", "symbol"),
    ("ts", "timestamp", "close stamp, UTC"),
    *((name, "double", "") for name in ("open", "high", "low", "close", "volume")),
    ("gap_bars", "double", "source bars missing since the bar before"),
)
CMC_FEATURES = _schema(
    *((name, kind, _DEFINITIONS.get(name, "")) for name, kind in FEATURE_COLUMNS)
)
FEATURE_SNAPSHOTS = _schema(
    ("asset", "string", "symbol"),
    ("ts", "timestamp", "close stamp, UTC, as in the table"),
    *((name, "double", _DEFINITIONS[name]) for name in READ_COLUMNS),
    *((f"ema_{period}", "double", _DEFINITIONS[f"ema_{period}"]) for period in EMA_PERIODS),
)
SIGNALS = _schema(
    ("signal_id", "integer", "row of dim_signals"),
    ("id", "integer", "asset"),
    ("tf", "text", "timeframe"),
    ("ts", "timestamptz", "close of the bar that gave the signal; it fills at the next open"),
    ("direction", "text", "long or short"),
    ("action", "text", "entry or exit"),
    ("close", "double", "price at the signal"),
    ("feature_snapshot", "jsonb", "the full feature row of that bar"),
)
BACKTESTS = _schema(
    ("run_id", "uuid", "follows from all inputs"),
    ("signal_name", "text", "strategy with its parameters"),
    ("symbol", "text", "asset"),
    ("tf", "text", "timeframe"),
    *((metric.name, metric.unit, metric.formula) for metric in (*METRICS, *FAMILY_METRICS)),
)
LEADERBOARD = _schema(
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
NEGATIVE_CONTROLS = _schema(
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
RESTATEMENTS = _schema(
    ("restatement_id", "uuid", "follows from the partition and both versions"),
    ("id", "integer", "asset"),
    ("tf", "text", "timeframe"),
    ("version_before", "text", "dataset version of the features that runs had used"),
    ("version_after", "text", "of those that took their place"),
    ("code_changed", "boolean", "whether other code made them"),
    ("bars_changed", "bigint", "bars of both with another value"),
    ("bars_added", "bigint", "late bars, at or before the last known one"),
    ("bars_removed", "bigint", "bars that are gone"),
    ("first_ts", "timestamptz", "first bar that differs"),
    ("last_ts", "timestamptz", "last bar that differs"),
    ("columns", "jsonb", "largest relative change by column"),
)
RETENTION = _schema(
    ("what", "text", "kind of row, or folder of files below the root of the artifacts"),
    ("rows", "bigint", "rows that went"),
    ("files", "bigint", "files that went"),
    ("bytes", "bigint", "what they held"),
)
WALK_FORWARD = _schema(
    ("run_id", "uuid", "stitched out-of-sample run, split walk_forward in backtest_runs"),
    ("fold", "integer", "from 0 on"),
    ("train_start", "timestamptz", "close of the first bar that was trained on"),
    ("train_end", "timestamptz", "close of the last bar that was trained on"),
    ("test_start", "timestamptz", "close of the first bar that was tested on"),
    ("test_end", "timestamptz", "close of the last bar that was tested on"),
    ("params", "jsonb", "chosen in training"),
    ("score", "double", "the objective of the choice, in training"),
    ("n_combinations", "integer", "evaluated in training"),
    *((f"train_{name}", "double", "of the choice, in training") for name in FOLD_METRICS),
    *((f"test_{name}", "double", "of the choice, out of sample") for name in FOLD_METRICS),
)
PORTFOLIOS = _schema(
    ("run_id", "uuid", "follows from all inputs"),
    ("tf", "text", "timeframe"),
    ("signal_name", "text", "strategy with its parameters, or all of them together"),
    ("scheme", "text", "how capital is spread"),
    ("n_members", "integer", "runs, or strategies' portfolios, that it is formed of"),
    ("n_rebalances", "integer", "times that weights were set"),
    ("left_out", "jsonb", "members that got no weight at a rebalance, by reason"),
    ("metrics", "jsonb", "metrics of the portfolio's equity, and figures of its members together"),
    ("undefined", "jsonb", "why a metric is NULL"),
)
