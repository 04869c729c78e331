"""All metrics of a run beside those of its benchmark, computed by the same code."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from backtest_pipeline.report.number_formats import DASH, kind_of
from backtest_pipeline.report.run_report.contents import (
    Card,
    Cell,
    ReportedRun,
    ReportTable,
    RunSeries,
    Section,
    TableRow,
    Words,
    figure,
)
from backtest_pipeline.simulation.metrics.metrics import (
    AGAINST_BENCHMARK,
    FAMILY_METRICS,
    METRICS,
    equity_metrics,
)

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Return": {
        "total_return": "Total return",
        "cagr": "A year (CAGR)",
        "benchmark_return": "Benchmark's return",
        "alpha": "Alpha a year",
        "beta": "Beta",
        "information_ratio": "Information ratio",
        "tracking_error": "Tracking error a year",
    },
    "Risk": {
        "annual_volatility": "Volatility a year",
        "max_drawdown": "Largest drawdown",
        "max_drawdown_duration_days": "Longest drawdown, days",
        "value_at_risk_95": "Value at risk, 95 %",
        "expected_shortfall_95": "Expected shortfall, 95 %",
        "skew": "Skew",
        "kurtosis": "Kurtosis",
    },
    "Reward for risk": {
        "sharpe": "Sharpe ratio",
        "sortino": "Sortino ratio",
        "calmar": "Calmar ratio",
        "omega": "Omega",
    },
    "Trading": {
        "trade_count": "Trades, open ones too",
        "win_rate": "Won, of closed",
        "profit_factor": "Profit factor, closed",
        "expectancy": "Average closed trade",
        "avg_win": "Average gain",
        "avg_loss": "Average loss",
        "avg_holding_days": "Days held",
        "exposure": "In position",
        "turnover": "Turnover a year, times",
    },
    "Costs": {
        "fees_paid": "Fees",
        "slippage_cost": "Slippage",
        "funding_paid": "Funding",
    },
    "Significance": {
        "psr": "Probabilistic Sharpe",
        "min_track_record_length": "Shortest track record, days",
        "dsr": "Deflated Sharpe",
        "dsr_effective": "Deflated, effective trials",
        "n_trials": "Trials counted",
        "n_trials_effective": "Effective trials",
    },
}
_DEFINITIONS = {m.name: m.formula for m in (*METRICS, *FAMILY_METRICS)}
_UNDEFINED = {m.name: m.undefined for m in (*METRICS, *FAMILY_METRICS)}


def metrics_section(run: ReportedRun) -> Section:
    """Metrics in groups, as far as its kind has them; the reason where one is undefined."""
    held = benchmark_metrics(run.series, run.risk_free) if run.series else {}
    cards = [
        Card(title, table=_group(run, title, names, held), columns=4)
        for title, names in GROUPS.items()
        if run.metrics.keys() & names.keys()
    ]
    return Section("metrics", "Metrics", cards)


def benchmark_metrics(series: RunSeries, risk_free: float) -> dict[str, float | None]:
    """Metrics of the benchmark's equity; those against a benchmark, and of trades, are left out."""
    if not series.has_benchmark:
        return {}
    bounds, held = np.array([0, len(series.ts)]), series.benchmark.copy()
    metrics = equity_metrics(series.ts, bounds, held.reshape(1, -1), held, risk_free=risk_free)
    own = {name: float(values[0]) for name, values in metrics.items()}
    left_out = (*AGAINST_BENCHMARK, "mean_equity", "n_days")
    return {
        name: value if math.isfinite(value) else None
        for name, value in own.items()
        if name not in left_out
    }


def _group(
    run: ReportedRun, title: str, names: Mapping[str, str], held: Mapping[str, float | None]
) -> ReportTable:
    beside = bool(held) and any(name in held for name in names)
    rows = [
        TableRow(words, _cells(run, name, held, beside), _about(run, name))
        for name, words in names.items()
        if name in run.metrics
    ]
    heads = ["", "run", *([run.benchmark_name] if beside else [])]
    return ReportTable(f"Metrics: {title}", heads, rows, "mg")


def _cells(
    run: ReportedRun, name: str, held: Mapping[str, float | None], beside: bool
) -> list[Cell]:
    cells: list[Cell] = [run.figure(name)]
    if beside:
        known = held.get(name)
        cells.append(
            Words(DASH) if name not in held else figure(f"benchmark_{name}", known, kind_of(name))
        )
    return cells


def _about(run: ReportedRun, name: str) -> str:
    if run.metrics.get(name) is None:
        return f"undefined: {run.undefined.get(name) or _UNDEFINED.get(name) or 'not recorded'}"
    return _DEFINITIONS.get(name, "")
