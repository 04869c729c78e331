"""Column schemas of the assets' tables, built from the lists that the code itself uses."""

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
    ("gap_bars", "double", "source bars missing since the previous bar"),
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
    ("ts", "timestamptz", "close of the signal's bar; the order fills at the next open"),
    ("direction", "text", "long or short"),
    ("action", "text", "entry or exit"),
    ("close", "double", "close price of the signal's bar"),
    ("feature_snapshot", "jsonb", "the full feature row of that bar"),
)
BACKTESTS = _schema(
    ("run_id", "uuid", "hash of all inputs"),
    ("signal_name", "text", "strategy with its parameters"),
    ("symbol", "text", "asset"),
    ("tf", "text", "timeframe"),
    *((metric.name, metric.unit, metric.formula) for metric in (*METRICS, *FAMILY_METRICS)),
)
LEADERBOARD = _schema(
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
NEGATIVE_CONTROLS = _schema(
    ("control_id", "text", "hash of the settings, the bars and the code"),
    ("world", "text", "random_walk or shuffled_bars"),
    ("seed", "bigint", ""),
    ("n_searches", "integer", "random markets, each searched once"),
    ("n_naive", "integer", "searches whose best run has a PSR of at least 0.95"),
    ("n_in_family", "integer", "searches with a DSR of at least 0.95 within a family"),
    ("n_significant", "integer", "the same, corrected for choosing the best of all families"),
    ("n_passed", "integer", "searches with a run that passes all gates"),
    ("rate", "double", "n_significant / n_searches"),
    ("run_rate", "double", "share of strategies whose best run has a DSR of at least 0.95"),
    ("walk_forward_rate", "double", "share of walk-forwards that passed"),
    ("upper_bound", "double", "one-sided 95 % upper bound of the rate (Clopper-Pearson)"),
)
RESTATEMENTS = _schema(
    ("restatement_id", "uuid", "hash of the partition and both versions"),
    ("id", "integer", "asset"),
    ("tf", "text", "timeframe"),
    ("version_before", "text", "dataset version of the features that runs had used"),
    ("version_after", "text", "dataset version of the features that replaced them"),
    ("code_changed", "boolean", "whether the code that computed them changed"),
    ("bars_changed", "bigint", "bars in both versions with a different value"),
    ("bars_added", "bigint", "bars added at or before the last bar of the old version"),
    ("bars_removed", "bigint", "bars missing from the new version"),
    ("first_ts", "timestamptz", "first bar that differs"),
    ("last_ts", "timestamptz", "last bar that differs"),
    ("columns", "jsonb", "largest relative change by column"),
)
RETENTION = _schema(
    ("what", "text", "kind of row, or top-level folder of the artifact store"),
    ("rows", "bigint", "rows deleted"),
    ("files", "bigint", "files deleted"),
    ("bytes", "bigint", "bytes freed"),
)
WALK_FORWARD = _schema(
    ("run_id", "uuid", "stitched out-of-sample run, split walk_forward in backtest_runs"),
    ("fold", "integer", "number of the fold, from 0"),
    ("train_start", "timestamptz", "close of the first training bar"),
    ("train_end", "timestamptz", "close of the last training bar"),
    ("test_start", "timestamptz", "close of the first test bar"),
    ("test_end", "timestamptz", "close of the last test bar"),
    ("params", "jsonb", "parameters chosen in training"),
    ("score", "double", "training objective of the chosen parameters"),
    ("n_combinations", "integer", "combinations evaluated in training"),
    *((f"train_{name}", "double", "chosen parameters, in training") for name in FOLD_METRICS),
    *((f"test_{name}", "double", "chosen parameters, out of sample") for name in FOLD_METRICS),
)
PORTFOLIOS = _schema(
    ("run_id", "uuid", "hash of all inputs"),
    ("tf", "text", "timeframe"),
    ("signal_name", "text", "strategy with its parameters, or `all` strategies together"),
    ("scheme", "text", "weighting scheme"),
    ("n_members", "integer", "runs, or strategies' portfolios, in the portfolio"),
    ("n_rebalances", "integer", "number of rebalances"),
    ("left_out", "jsonb", "members that got no weight at a rebalance, counted by reason"),
    ("metrics", "jsonb", "metrics of the portfolio's equity, and of its diversification"),
    ("undefined", "jsonb", "why a metric is NULL"),
)
