"""Summaries of stored results: counts, skipped rows, best and worst runs, and a chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.presets import left_out_presets
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.report.number_formats import written
from backtest_pipeline.report.svg import Chart, Line
from backtest_pipeline.storage.run_tables.quarantine import quarantined_runs
from backtest_pipeline.storage.run_tables.run_figures import current_figures, figures_by_partition
from backtest_pipeline.storage.run_tables.walk_forward import walk_forward_figures
from backtest_pipeline.storage.tables.asset_identity import remarks_of
from backtest_pipeline.storage.tables.datasets import quality_by_reason
from backtest_pipeline.storage.tables.dimensions import synthetic_among
from backtest_pipeline.storage.tables.signals import count_signals

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
_MOST_LEFT_OUT = 1000
LEFT_OUT = "left_out"
"""Name of the table, and its one column, of the parts of a source that were not read."""
Run = Mapping[str, Any]
"""A row of `storage.run_tables.runs.current_runs`, or of `run_figures.current_figures`."""


@dataclass(frozen=True)
class Summary:
    """Numbers, tables (lists of rows), and where there is a best run its chart and its id."""

    numbers: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    chart: Chart | None = None
    best_run: UUID | None = None


class _Box(NamedTuple):
    symbols: list[str]
    timeframes: list[str]


def _box(partitions: Sequence[Partition]) -> _Box:
    """The symbols and timeframes of these partitions."""
    return _Box(sorted({p.asset for p in partitions}), sorted({p.timeframe for p in partitions}))


@retried
def bars_summary(
    workspace: Workspace, partitions: Sequence[Partition], unread: Sequence[str] = ()
) -> Summary:
    """Skipped and flagged source rows by reason, remarks on assets, and parts that were not read.

    Args:
        workspace: the store.
        partitions: what was refreshed.
        unread: a sentence on each part of the source that was not read.
    """
    rows = _quality(workspace, "bars", partitions)
    with workspace.database.begin() as connection:
        remarks = remarks_of(connection, _box(partitions).symbols)
    return Summary(
        {"assets_remarked_upon": len(remarks), "source_parts_left_out": len(unread)},
        {**rows.tables, "identity": remarks, LEFT_OUT: _first_left_out(unread)},
    )


def _first_left_out(unread: Sequence[str]) -> list[dict[str, Any]]:
    sentences = list(unread[:_MOST_LEFT_OUT])
    if len(unread) > _MOST_LEFT_OUT:
        sentences.append(f"and {len(unread) - _MOST_LEFT_OUT:,} more")
    return [{LEFT_OUT: sentence} for sentence in sentences]


@retried
def features_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """The number of assets with synthetic bars."""
    with workspace.database.begin() as connection:
        synthetic = synthetic_among(connection, _box(partitions).symbols)
    return Summary({"synthetic_assets": len(synthetic)})


@retried
def snapshots_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """Skipped and flagged rows of the external feature table, by reason."""
    return _quality(workspace, "features", partitions)


@retried
def signals_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """Number of signal events by signal, and the presets left out because they look ahead."""
    with workspace.database.begin() as connection:
        counts = count_signals(connection, **_box(partitions)._asdict())
    tables: dict[str, Sequence[Mapping[str, Any]]] = {"events_by_signal": counts}
    left_out = left_out_presets(workspace)
    if left_out:
        tables["left_out"] = [{"preset": name, "why": leak} for name, leak in left_out.items()]
    return Summary({"signal_events": sum(row["events"] for row in counts)}, tables)


@retried
def backtests_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """Best and worst runs by Sharpe ratio, and the equity of the best against buy and hold."""
    with workspace.database.begin() as connection:
        found = current_figures(connection, TABLE_METRICS, **_box(partitions)._asdict())
    runs = real_runs(found)
    common = _runs_summary(workspace, partitions, runs, "backtests", "full")
    if not runs:
        return common
    numbers = {
        "runs": len(runs),
        "trades": int(sum(run["trade_count"] for run in runs)),
        "runs_beating_benchmark": beating_benchmark(runs),
        "runs_liquidated": sum(run["liquidated"] for run in runs),
    }
    tables = _extremes(by_sharpe(runs))
    return replace(
        common, numbers={**numbers, **common.numbers}, tables={**tables, **common.tables}
    )


@retried
def walk_forward_summary(workspace: Workspace, partitions: Sequence[Partition]) -> Summary:
    """Walk-forward verdicts counted, and the best out-of-sample runs."""
    with workspace.database.begin() as connection:
        found = walk_forward_figures(connection, TABLE_METRICS, **_box(partitions)._asdict())
    runs = real_runs(found)
    common = _runs_summary(workspace, partitions, runs, "walk_forward", "walk_forward")
    if not runs:
        return common
    verdicts = Counter(run["verdict"] for run in runs)
    ranked = by_sharpe(runs)[: 2 * _SHOWN]
    judged = [
        {
            "run": row["run"],
            "Sharpe": row["Sharpe"],
            "return": row["return"],
            "efficiency": written(run["efficiency"], "ratio"),
            "verdict": run["verdict"],
        }
        for row, run in zip(_short_rows(ranked), ranked, strict=True)
    ]
    numbers = {
        "runs": len(runs),
        "folds": sum(run["n_folds"] for run in runs),
        **{f"runs_{verdict}": n for verdict, n in sorted(verdicts.items())},
    }
    tables = {"best_out_of_sample": judged}
    return replace(
        common, numbers={**numbers, **common.numbers}, tables={**tables, **common.tables}
    )


def runs_figures(
    dataset: str,
) -> Callable[[Workspace, Sequence[Partition]], dict[Partition, dict[str, Any]]]:
    """A function for the best run of partitions that have runs, its figures, and all trades.

    `dataset` is `backtests` or `walk_forward`.
    """

    @retried
    def figures(
        workspace: Workspace, partitions: Sequence[Partition]
    ) -> dict[Partition, dict[str, Any]]:
        with workspace.database.begin() as connection:
            found = figures_by_partition(connection, dataset, **_box(partitions)._asdict())
        return {Partition(symbol, tf): own for (symbol, tf), own in found.items()}

    return figures


def _runs_summary(
    workspace: Workspace,
    partitions: Sequence[Partition],
    runs: Sequence[Run],
    dataset: str,
    split: str,
) -> Summary:
    """Rows by reason, quarantined runs, and the chart of the best run.

    Args:
        workspace: the open store.
        partitions: the partitions of the runs.
        runs: their current runs.
        dataset: the dataset whose input rows are counted by reason.
        split: `full`, or `walk_forward` for out-of-sample runs.
    """
    tables = _quality(workspace, dataset, partitions).tables
    quarantine = quarantine_summary(workspace, partitions, split)
    tables = {**tables, **quarantine.tables}
    if not runs:
        return Summary(quarantine.numbers, tables)
    with workspace.database.begin() as connection:
        synthetic = synthetic_among(connection, _box(partitions).symbols)
    ranked = by_sharpe(runs)
    numbers = {"synthetic_assets": len(synthetic), **quarantine.numbers}
    if not ranked:
        return Summary(numbers, tables)
    best = ranked[0]
    return Summary(numbers, tables, run_chart(workspace, best), UUID(str(best["run_id"])))


def quarantine_summary(
    workspace: Workspace, partitions: Sequence[Partition], split: str
) -> Summary:
    """Runs left out because their replay gave a different result; empty where there are none."""
    with workspace.database.begin() as connection:
        quarantined = quarantined_runs(connection, split=split, **_box(partitions)._asdict())
    if not quarantined:
        return Summary()
    shown = [
        {
            "signal": row["signal_name"],
            "asset": row["symbol"],
            "timeframe": row["tf"],
            "since": f"{row['quarantined_at']:%F %T} UTC",
            "why": row["reason"],
        }
        for row in quarantined[: 2 * _SHOWN]
    ]
    return Summary({"runs_in_quarantine": len(quarantined)}, {"in_quarantine": shown})


def _extremes(ranked: Sequence[Run]) -> dict[str, list[Mapping[str, Any]]]:
    if len(ranked) <= 2 * _SHOWN:
        return {"runs_by_sharpe": _short_rows(ranked)}
    return {
        "best_runs": _short_rows(ranked[:_SHOWN]),
        "worst_runs": _short_rows(ranked[: -_SHOWN - 1 : -1]),
    }


def _short_rows(runs: Sequence[Run]) -> list[Mapping[str, str]]:
    """Runs in the five columns that Dagster's pages show uncut, as text; Sharpe ratio second.

    Asset and timeframe are named where the runs are of several.
    """
    several = len({(run["symbol"], run["tf"]) for run in runs}) > 1
    return [
        {
            "run": f"{run['signal_name']} {run['symbol']}|{run['tf']}"
            if several
            else run["signal_name"],
            "Sharpe": written(run["sharpe"], "ratio"),
            "return": written(run["total_return"], "percent", signed=True),
            "drawdown": written(run["max_drawdown"], "percent"),
            "trades": written(run["trade_count"], "count"),
        }
        for run in runs
    ]


def real_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs of real assets; all where none is of a real one."""
    return [run for run in runs if not run["synthetic"]] or list(runs)


def by_sharpe(runs: Sequence[Run]) -> list[Run]:
    """The runs with a defined Sharpe ratio, best first."""
    judged = [run for run in runs if run["sharpe"] is not None]
    return sorted(
        judged, key=lambda run: (-run["sharpe"], run["symbol"], run["tf"], run["signal_name"])
    )


def beating_benchmark(runs: Sequence[Run]) -> int:
    """Number of runs that returned more than their benchmark."""
    return sum(run["total_return"] > run["benchmark_return"] for run in runs)


def run_rows(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """Runs as table rows: signal, asset, timeframe and the main metrics."""
    return [
        {
            "signal": run["signal_name"],
            "asset": run["symbol"],
            "timeframe": run["tf"],
            **{name: rounded(run[name]) for name in TABLE_METRICS},
        }
        for run in runs
    ]


class Curves(NamedTuple):
    """Equity, drawdown and benchmark of a run by bar, with a tz-aware index."""

    equity: pd.Series
    drawdown: pd.Series
    benchmark: pd.Series


def run_curves(workspace: Workspace, run: Run) -> Curves:
    """The stored series of a run."""
    read, uri = workspace.artifacts.read_table, run["artifact_uri"]
    own = [("run_id", "==", str(run["run_id"]))]
    table = read(uri, "equity.parquet", ["ts", "equity", "drawdown"], own)
    held = read(uri, "benchmark.parquet", ["benchmark"], [("asset", "==", run["symbol"])])
    index = utc_index(table["ts"].cast(pa.int64()).to_numpy())
    columns = (table["equity"], table["drawdown"], held["benchmark"])
    return Curves(*(pd.Series(column.to_numpy(), index) for column in columns))


def run_chart(workspace: Workspace, run: Run) -> Chart:
    """Chart of a run's equity and its benchmark."""
    curves = run_curves(workspace, run)
    title = f"{run['symbol']} {run['tf']}: {run['signal_name']}"
    if run["synthetic"]:
        title += " (synthetic bars)"
    lines = Line("buy and hold", curves.benchmark), Line(run["signal_name"], curves.equity)
    return Chart(lines, title)


def _quality(workspace: Workspace, dataset: str, partitions: Sequence[Partition]) -> Summary:
    with workspace.database.begin() as connection:
        reasons = quality_by_reason(connection, dataset, **_box(partitions)._asdict())
    return Summary({}, {"rows_by_reason": reasons})


def rounded(value: float | None) -> float | None:
    """The value rounded to four digits for display; None for None and NaN."""
    return None if value is None or np.isnan(value) else round(float(value), 4)
