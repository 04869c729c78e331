"""`backtest-pipeline run`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backtest_pipeline.cli.console import (
    console,
    print_json,
    progress_shown,
    rows_table,
    say,
    say_what_is_missing,
)
from backtest_pipeline.cli.opening import store_and_source

if TYPE_CHECKING:
    from backtest_pipeline.cli.assumed import Assumed
    from backtest_pipeline.research.selection import Intervals


def run(
    *,
    signal: str,
    asset: str,
    tf: str,
    assumptions: Assumed,
    bars: str,
    full_rebuild: bool,
    as_json: bool,
) -> None:
    """Backtest, print the result and where its files are."""
    with progress_shown() as progress:
        progress("loading", 0, 1)
        asked = assumptions.asked()
        from backtest_pipeline.pipeline.single_run import backtest_once, run_intervals
        from backtest_pipeline.storage.datasets import (
            not_fetched_since,
            quality_by_reason,
            synthetic_among,
        )

        with store_and_source(asset, bars, progress, asked.benchmark) as (workspace, source):
            row = backtest_once(
                workspace,
                source,
                signal=signal,
                asset=asset,
                tf=tf,
                asked=asked,
                rebuild=full_rebuild,
            )
            intervals = run_intervals(workspace, row, risk_free=asked.config.risk_free) or {}
            folder = f"{workspace.artifacts.where}/{row['artifact_uri']}"
            with workspace.database.begin() as connection:
                synthetic = bool(synthetic_among(connection, [asset]))
                remarks = quality_by_reason(
                    connection, workspace.price_dataset, symbols=[asset], timeframes=[tf]
                )
                missing = not_fetched_since(connection, symbols=[asset], timeframes=[tf])
    rows_by_reason = {str(remark["reason"]): int(remark["rows"]) for remark in remarks}
    if as_json:
        ends = {name: list(map(_known, pair)) for name, pair in intervals.items()}
        since = {name: at.isoformat() for name, at in missing.items()}
        print_json(
            _as_json(row, folder, synthetic, rows_by_reason)
            | {"intervals": ends, "not_fetched_since": since}
        )
    else:
        _show(row, folder, synthetic, rows_by_reason)
        say_what_is_missing(missing)
        _show_significance(row, intervals)


def _show(
    row: Mapping[str, Any], folder: str, synthetic: bool, rows_by_reason: Mapping[str, int]
) -> None:
    from backtest_pipeline.pipeline.summary import run_rows

    console.print(rows_table(f"run {row['run_id']}", run_rows([row])))
    of_what = " of the synthetic sample market" if synthetic else ""
    first, last = (f"{row[name]:%Y-%m-%d %H:%M:%S}" for name in ("first_ts", "last_ts"))
    say(f"{row['n_bars']:,} bars{of_what}, closing from {first} to {last} UTC")
    if rows_by_reason:
        counts = ", ".join(f"{reason} {rows:,}" for reason, rows in rows_by_reason.items())
        say(f"rows of the source, skipped or remarked upon: {counts}")
    if row["results"]["liquidated"]:
        say("the equity was used up: the position was liquidated, and the run ends there")
    if row["results"].get("refused_entries"):
        say(f"{row['results']['refused_entries']} entries were too small or could not be sized")
    if row["results"]["pending"]:
        say(f"the last bar's signal is pending: {row['results']['pending']} at the next open")
    say(f"equity and monthly returns: {folder}")
    say("run, trades, metrics: tables backtest_runs, backtest_trades, backtest_metrics")


def _show_significance(row: Mapping[str, Any], intervals: Intervals) -> None:
    if row["dsr"] is not None:
        say(
            f"probability of a Sharpe ratio above zero: {row['psr']:.0%} alone, {row['dsr']:.0%} "
            f"as one of {row['n_trials']:,.0f} trials of {row['signal_type']} here "
            f"({row['dsr_effective']:.0%} as one of {row['n_trials_effective']:,.1f} of their own "
            "kind)"
        )
    if intervals and not any(map(math.isnan, intervals["sharpe"])):
        low, high = intervals["sharpe"]
        lowest, highest = intervals["total_return"]
        say(
            f"its days drawn anew, 5th to 95th percentile: Sharpe {low:.2f} to {high:.2f}, return "
            f"{lowest:.1%} to {highest:.1%}"
        )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _as_json(
    row: Mapping[str, Any], folder: str, synthetic: bool, rows_by_reason: Mapping[str, int]
) -> dict[str, Any]:
    from backtest_pipeline.simulation.metrics import FAMILY_METRICS, METRIC_NAMES

    return {
        "run_id": str(row["run_id"]),
        "signal": row["signal_name"],
        "asset": row["symbol"],
        "timeframe": row["tf"],
        "bars": int(row["n_bars"]),
        "synthetic": synthetic,
        "rows_by_reason": rows_by_reason,
        "first_ts": row["first_ts"].isoformat(),
        "last_ts": row["last_ts"].isoformat(),
        "pending": row["results"]["pending"],
        "liquidated": row["results"]["liquidated"],
        "refused_entries": row["results"].get("refused_entries", 0),
        "metrics": {name: row[name] for name in METRIC_NAMES},
        "significance": {metric.name: row[metric.name] for metric in FAMILY_METRICS},
        "undefined": row["undefined"],
        "result_fingerprint": row["result_fingerprint"],
        "artifacts": folder,
    }
