"""Metrics: names, units, formulas, and their computation.

Fractions, not percent. Daily statistics use the starting equity (at the first bar's close, before
which nothing can be held) and the equity at the end of each UTC day (a day without a bar repeats
the last equity): n daily returns r, 365 days a year, ddof 1. Drawdowns are of every mark. Where
bars are longer than a day and no daily bars mark the days between, tails, skew and kurtosis are of
returns from bar to bar. An undefined metric is NaN with a reason, never infinity, 0 or a sentinel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.simulation.marks import Marks
from backtest_pipeline.simulation.metrics.daily import (
    DAILY_STATISTICS,
    daily_shapes,
    daily_statistics,
    sampled_at_bars,
)
from backtest_pipeline.simulation.metrics.significance import (
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
)
from backtest_pipeline.simulation.trades import Trades

METRICS_VERSION = 2
"""Raise it when the same trades and equity give other metrics."""


@dataclass(frozen=True)
class Metric:
    """Definition of one metric."""

    name: str
    unit: str
    formula: str
    undefined: str
    """When the metric is undefined."""
    source: str = "definition"
    """Publication of the formula."""
    version: int = 1
    """METRICS_VERSION that introduced this formula."""


_DAYS = "fewer than two daily returns, or constant ones"
_BENCHMARK = "fewer than two daily returns, or a constant benchmark"
_LOSING_DAY = "fewer than two daily returns, or no losing day"
_CLOSED = "no closed trade"

METRICS: tuple[Metric, ...] = (
    Metric("total_return", "fraction", "equity_end / equity_start - 1", "no bars"),
    Metric(
        "cagr",
        "fraction a year",
        "(equity_end / equity_start) ** (365 / days) - 1",
        "less than 90 days of equity (GIPS: short periods are not annualised), or growth beyond "
        "the range of a double",
        version=2,
    ),
    Metric("annual_volatility", "fraction a year", "std(r) * sqrt(365)", _DAYS),
    Metric("sharpe", "per year", "mean(r) / std(r) * sqrt(365)", _DAYS, "Sharpe 1994"),
    Metric(
        "sortino",
        "per year",
        "mean(r) / sqrt(mean(min(r, 0) ** 2)) * sqrt(365)",
        _LOSING_DAY,
        "Sortino and Price 1994",
    ),
    Metric("calmar", "per year", "cagr / abs(max_drawdown)", "no drawdown, or no cagr"),
    Metric(
        "max_drawdown",
        "fraction",
        "min(equity / running_max(equity) - 1), at every bar's close",
        "no bars",
        version=2,
    ),
    Metric(
        "max_drawdown_duration_days",
        "days",
        "longest time from a peak of equity to its recovery, or to the end, at every bar's close",
        "no bars",
        version=2,
    ),
    Metric(
        "omega",
        "ratio",
        "sum(max(r, 0)) / sum(max(-r, 0))",
        _LOSING_DAY,
        "Keating and Shadwick 2002, threshold 0",
    ),
    Metric(
        "value_at_risk_95",
        "fraction a day, or a bar where bars are longer",
        "5th percentile of r (historical)",
        _DAYS,
        version=2,
    ),
    Metric(
        "expected_shortfall_95",
        "fraction a day, or a bar where bars are longer",
        "mean of the floor(0.05 * (n - 1)) + 1 smallest r (historical)",
        _DAYS,
        version=2,
    ),
    Metric("skew", "1", "m3 / m2 ** 1.5, central moments of r with ddof 0", _DAYS, version=2),
    Metric(
        "kurtosis", "1", "m4 / m2 ** 2 (Pearson: 3 for a normal distribution)", _DAYS, version=2
    ),
    Metric(
        "psr",
        "probability",
        "Z(S * sqrt(n - 1) / sqrt(v)), v = 1 - skew * S + (kurtosis - 1) / 4 * S ** 2, all of "
        "daily returns, S = sharpe / sqrt(365), Z the normal distribution function",
        _DAYS,
        "Bailey and Lopez de Prado 2012",
    ),
    Metric(
        "min_track_record_length",
        "days",
        "1 + v * (z(0.95) / S) ** 2, z the inverse of Z",
        "no Sharpe ratio above 0: no length would suffice",
        "Bailey and Lopez de Prado 2012",
    ),
    Metric("trade_count", "trades", "trades, open ones included", ""),
    Metric("win_rate", "fraction", "closed trades with pnl > 0 / closed trades", _CLOSED),
    Metric(
        "profit_factor",
        "ratio",
        "sum of positive pnl / abs(sum of negative pnl), closed trades",
        "no closed losing trade",
    ),
    Metric("expectancy", "fraction a trade", "mean(pnl_pct) of closed trades", _CLOSED),
    Metric(
        "avg_win", "fraction", "mean(pnl_pct) of closed trades with pnl > 0", "no winning trade"
    ),
    Metric(
        "avg_loss", "fraction", "mean(pnl_pct) of closed trades with pnl <= 0", "no losing trade"
    ),
    Metric("avg_holding_days", "days", "mean(exit_ts - entry_ts) of closed trades", _CLOSED),
    Metric("exposure", "fraction", "bars with a position at their close / bars", "no bars"),
    Metric(
        "turnover",
        "times a year",
        "sum(size * fill price) / mean(daily equity) / days * 365",
        "less than a day of equity",
    ),
    Metric("fees_paid", "quote currency", "sum of fees", ""),
    Metric(
        "slippage_cost", "quote currency", "sum of size * abs(fill price - reference price)", ""
    ),
    Metric("funding_paid", "quote currency", "sum of funding; negative where received", ""),
    Metric("benchmark_return", "fraction", "total_return of the benchmark", "no bars"),
    Metric(
        "alpha",
        "fraction a year",
        "(1 + mean(r - beta * b)) ** 365 - 1, b = daily returns of the benchmark",
        f"{_BENCHMARK}; less than 90 days of equity",
        "Jensen 1968, compounded",
        version=2,
    ),
    Metric("beta", "1", "cov(r, b) / var(b)", _BENCHMARK),
    Metric(
        "information_ratio",
        "per year",
        "mean(r - b) / std(r - b) * sqrt(365)",
        "fewer than two daily returns, or a run identical to its benchmark",
    ),
    Metric(
        "tracking_error",
        "fraction a year",
        "std(r - b) * sqrt(365)",
        "fewer than two daily returns",
    ),
)
METRIC_NAMES = tuple(metric.name for metric in METRICS)
AGAINST_BENCHMARK = ("benchmark_return", "alpha", "beta", "information_ratio", "tracking_error")
_REASONS = {metric.name: metric.undefined for metric in METRICS}

FAMILY_METRICS: tuple[Metric, ...] = (
    Metric(
        "dsr",
        "probability",
        "psr with S - S0 instead of S in the numerator; S0 is the expected maximum of n_trials "
        "Sharpe ratios without skill, each with a variance of 1 / (n - 1)",
        _DAYS,
        "Bailey and Lopez de Prado 2014",
    ),
    Metric(
        "dsr_effective",
        "probability",
        "dsr with n_trials_effective instead of n_trials",
        _DAYS,
        "Bailey and Lopez de Prado 2014",
    ),
    Metric("n_trials", "trials", "trials that count for the run's claim, see docs/research.md", ""),
    Metric(
        "n_trials_effective",
        "trials",
        "sum over clusters of c + (1 - c) * m, for m trials with a mean correlation of c",
        "",
        "Bailey and Lopez de Prado 2014",
    ),
)
"""Metrics that also depend on the other trials of a run's family; see docs/research.md."""


def compute_metrics_batch(
    panel: Panel,
    marks: Marks,
    equity: np.ndarray,
    benchmark: np.ndarray,
    trades: Trades,
    *,
    risk_free: float = 0.0,
) -> dict[str, np.ndarray]:
    """All metrics of all columns.

    Args:
        panel: the bars.
        marks: when the equity is marked.
        equity: float64 `(n_runs, n_marks)`.
        benchmark: float64 `(n_marks,)`, equity of the benchmark of each asset.
        trades: trades of all columns.
        risk_free: risk-free return per day, a fraction.

    Returns:
        One float64 `(n_columns,)` array per metric, NaN where undefined.
    """
    n_bars = np.tile(panel.lengths, equity.shape[0])
    return metrics_of_series(
        marks.ts, marks.offsets, equity, benchmark, vars(trades), trades.column, n_bars,
        risk_free=risk_free,
    )  # fmt: skip


def metrics_of_series(
    ts: np.ndarray,
    offsets: np.ndarray,
    equity: np.ndarray,
    benchmark: np.ndarray,
    trades: Mapping[str, np.ndarray],
    column: np.ndarray,
    n_bars: np.ndarray,
    *,
    risk_free: float = 0.0,
) -> dict[str, np.ndarray]:
    """All metrics of all columns, as `compute_metrics_batch`, from stored series and trades.

    Args:
        ts, offsets, equity, benchmark, risk_free: as `equity_metrics` takes them.
        trades, column: as `trade_metrics` takes them.
        n_bars: int64 `(n_columns,)`, number of bars of each column.
    """
    metrics = equity_metrics(ts, offsets, equity, benchmark, risk_free=risk_free)
    mean_equity, n_days = metrics.pop("mean_equity"), metrics.pop("n_days")
    with np.errstate(divide="ignore", invalid="ignore"):
        metrics.update(trade_metrics(trades, column, len(n_bars)))
        metrics["turnover"] = metrics.pop("notional") / mean_equity / n_days * 365.0
        metrics["exposure"] = metrics.pop("bars_in_position") / n_bars
    for values in metrics.values():
        values[~np.isfinite(values)] = np.nan
    return {name: metrics[name] for name in METRIC_NAMES}


def equity_metrics(
    ts: np.ndarray,
    offsets: np.ndarray,
    equity: np.ndarray,
    benchmark: np.ndarray,
    *,
    risk_free: float = 0.0,
) -> dict[str, np.ndarray]:
    """Metrics of equity alone, and `mean_equity` and `n_days`; float64 `(n_columns,)` each.

    Args:
        ts: int64 `(n_rows,)`, microseconds since 1970 UTC.
        offsets: int64 `(n_assets + 1,)`, first row of each asset, then the number of rows.
        equity: float64 `(n_runs, n_rows)`.
        benchmark: float64 `(n_rows,)`, equity of the benchmark of each asset.
        risk_free: risk-free return per day, a fraction.
    """
    at_bars = sampled_at_bars(offsets, ts)
    table = daily_statistics(equity, benchmark, offsets, ts, risk_free, at_bars=at_bars)
    table[~np.isfinite(table)] = np.nan
    metrics = {name: table[:, i].copy() for i, name in enumerate(DAILY_STATISTICS)}
    deepest = np.abs(metrics["max_drawdown"])
    metrics["calmar"] = np.divide(
        metrics["cagr"], deepest, out=np.full_like(deepest, np.nan), where=deepest > 0
    )
    per_day = metrics["sharpe"] / np.sqrt(365)
    shape = (metrics["skew"], metrics["kurtosis"])
    if at_bars.any():
        shape = daily_shapes(equity, offsets, ts)
    metrics["psr"] = probabilistic_sharpe_ratio(per_day, metrics["n_days"], *shape)
    metrics["min_track_record_length"] = minimum_track_record_length(per_day, *shape)
    return metrics


TRADE_COLUMNS = (
    *("entry_ts", "exit_ts", "entry_price", "exit_price", "size", "fees", "slippage_cost"),
    *("funding", "pnl", "pnl_pct", "bars_held", "is_open"),
)


def trade_metrics(
    trades: Mapping[str, np.ndarray], column: np.ndarray, n_columns: int
) -> dict[str, np.ndarray]:
    """Metrics of trades alone, and `notional` and `bars_in_position`; float64 `(n_columns,)` each.

    Args:
        trades: TRADE_COLUMNS by name, each `(n_trades,)`, timestamps in microseconds.
        column: int64 `(n_trades,)`, column of each trade.
        n_columns: number of columns.
    """

    def total(weights: np.ndarray) -> np.ndarray:
        sums = np.bincount(column, weights=weights, minlength=n_columns)
        return sums.astype(np.float64)  # without a trade NumPy returns integers

    pnl, pnl_pct = trades["pnl"], trades["pnl_pct"]
    closed = ~trades["is_open"]
    won = closed & (pnl > 0)
    lost = closed & ~won
    n_closed, n_won, n_lost = total(closed), total(won), total(lost)
    held_days = (trades["exit_ts"] - trades["entry_ts"]) / DAY_US
    prices = trades["entry_price"] + trades["exit_price"] * closed
    return {
        "trade_count": np.bincount(column, minlength=n_columns).astype(np.float64),
        "win_rate": n_won / n_closed,
        "profit_factor": total(pnl * won) / -total(pnl * lost),
        "expectancy": total(pnl_pct * closed) / n_closed,
        "avg_win": total(pnl_pct * won) / n_won,
        "avg_loss": total(pnl_pct * lost) / n_lost,
        "avg_holding_days": total(held_days * closed) / n_closed,
        "fees_paid": total(trades["fees"]),
        "slippage_cost": total(trades["slippage_cost"]),
        "funding_paid": total(trades["funding"]),
        "notional": total(trades["size"] * prices),
        "bars_in_position": total(trades["bars_held"]),
    }


def metrics_page() -> str:
    """The page docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        f"Version {METRICS_VERSION}. Fractions, not percent. Daily statistics use the starting",
        "equity and the equity at the end of each UTC day (a day without a bar repeats the last",
        "equity): n daily returns `r`, 365 days a year, `std` with ddof 1. Sharpe, Sortino, omega",
        "and alpha are in excess of the risk-free return per day, 0 unless configured. The",
        "benchmark is buy and hold of the same asset at the same fee and slippage, no funding,",
        "unless another one is chosen. An undefined metric is NULL with its reason beside it,",
        "never infinity, 0 or a sentinel.",
        "",
        "Equity is marked at the close of every bar. Where bars are longer than a day and daily",
        "bars of the asset are stored, it is marked at each day's end as well (see",
        "[simulation.md](simulation.md#between-the-closes-of-bars-longer-than-a-day)), and so is",
        "the benchmark: a month that falls by half and comes back is seen by every statistic.",
        "Drawdowns are of every mark.",
        "",
        "Where bars are longer than a day and no daily bars fit them, value at risk, shortfall,",
        "skew and kurtosis are of the returns from bar to bar, and `backtest_metrics.sampling` is",
        "`bars` instead of `daily`: daily returns would be 0 on most days, and a tail read off",
        "them meaningless.",
        "",
        *_table_of(METRICS),
        "",
        "A stored run also has metrics that depend on the other trials of its family; see",
        "[research.md](research.md).",
        "",
        *_table_of(FAMILY_METRICS),
    ]
    return "\n".join(lines) + "\n"


def _table_of(metrics: Iterable[Metric]) -> list[str]:
    rows = [
        f"| `{m.name}` | {m.unit} | `{m.formula}` | {m.undefined or 'never'} | {m.source} |"
        f" {m.version} |"
        for m in metrics
    ]
    return [
        "| metric | unit | formula | undefined | source | since version |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
    ]


def undefined_reasons(metrics: Mapping[str, float]) -> dict[str, str]:
    """The reason for each undefined (NaN) metric of one run."""
    return {name: _REASONS[name] for name, value in metrics.items() if np.isnan(value)}
