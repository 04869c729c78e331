"""What a trader reads about stored results: counts, skipped rows, best and worst runs, a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.svg import Line, line_chart
from backtest_pipeline.storage.datasets import quality_by_reason, synthetic_among
from backtest_pipeline.storage.runs import current_runs
from backtest_pipeline.storage.signals import count_signals

TABLE_METRICS = (
    "total_return",
    "benchmark_return",
    "sharpe",
    "max_drawdown",
    "trade_count",
    "win_rate",
    "fees_paid",
)
_SHOWN = 5


@dataclass(frozen=True)
class Summary:
    """Numbers, tables (lists of rows) and perhaps one chart (SVG text)."""

    numbers: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    chart: str = ""


def _box(partitions: Sequence[Partition]) -> dict[str, list[str]]:
    """The assets and timeframes of partitions that form a rectangle."""
    return {
        "symbols": sorted({p.asset for p in partitions}),
        "timeframes": sorted({p.timeframe for p in partitions}),
    }


def bars_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """Rows that were skipped or remarked upon, by reason."""
    return _quality(workspace, "bars", partitions)


def features_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """Whether the bars are invented."""
    with workspace.database.begin() as connection:
        synthetic = synthetic_among(connection, _box(partitions)["symbols"])
    return Summary({"synthetic_assets": len(synthetic)})


def signals_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """Events by signal."""
    with workspace.database.begin() as connection:
        counts = count_signals(connection, **_box(partitions))
    return Summary(
        {"signal_events": sum(row["events"] for row in counts)}, {"events_by_signal": counts}
    )


def backtests_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """Best and worst runs by Sharpe, and the equity of the best against buy and hold."""
    with workspace.database.begin() as connection:
        runs = current_runs(connection, **_box(partitions))
        synthetic = synthetic_among(connection, _box(partitions)["symbols"])
    quality = _quality(workspace, "backtests", partitions)
    if runs.empty:
        return quality
    ranked = runs.sort_values(
        ["sharpe", "symbol", "tf", "signal_name"], ascending=[False, True, True, True]
    )
    judged = ranked[ranked["sharpe"].notna()]
    return Summary(
        {
            "runs": len(runs),
            "trades": int(runs["trade_count"].sum()),
            "runs_beating_benchmark": int((runs["total_return"] > runs["benchmark_return"]).sum()),
            "runs_liquidated": int(sum(bool(r["liquidated"]) for r in runs["results"])),
            "median_sharpe": _rounded(runs["sharpe"].median()),
            "synthetic_assets": len(synthetic),
        },
        {
            **quality.tables,
            "best_runs": run_rows(judged.head(_SHOWN)),
            "worst_runs": run_rows(judged.tail(_SHOWN).iloc[::-1]),
        },
        run_chart(workspace, judged.iloc[0], bool(synthetic)) if len(judged) else "",
    )


def run_rows(runs: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Runs as table rows: what was run, then its main metrics."""
    return [
        {
            "signal": run["signal_name"],
            "asset": run["symbol"],
            "timeframe": run["tf"],
            **{name: _rounded(run[name]) for name in TABLE_METRICS},
        }
        for _, run in runs.iterrows()
    ]


def run_curves(workspace: Workspace, run: Mapping[str, Any]) -> pd.DataFrame:
    """Equity, drawdown and benchmark of a run, indexed by bar."""
    columns = ["ts", "equity", "drawdown", "benchmark"]
    table = workspace.artifacts.read_table(
        str(run["artifact_uri"]),
        "equity.parquet",
        columns,
        [("run_id", "==", str(run["run_id"]))],
    )
    index = utc_index(table["ts"].cast(pa.int64()).to_numpy())
    return pd.DataFrame({name: table[name].to_numpy() for name in columns[1:]}, index=index)


def run_chart(workspace: Workspace, run: Mapping[str, Any], synthetic: bool) -> str:
    """A run's equity against its benchmark as SVG."""
    curves = run_curves(workspace, run)
    title = f"{run['symbol']} {run['tf']}: {run['signal_name']}"
    if synthetic:
        title += " (synthetic bars)"
    return line_chart(
        [
            Line("buy and hold", curves["benchmark"]),
            Line(str(run["signal_name"]), curves["equity"]),
        ],
        title,
    )


def _quality(workspace: Workspace, dataset: str, partitions: Sequence[Partition]) -> Summary:
    with workspace.database.begin() as connection:
        reasons = quality_by_reason(connection, dataset, **_box(partitions))
    return Summary({}, {"rows_by_reason": reasons})


def _rounded(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)
