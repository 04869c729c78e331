"""One run as an HTML page of its own: no script, no network, nothing to load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import pandas as pd

from backtest_pipeline.report.number_formats import shown
from backtest_pipeline.report.rendering import Tile, render
from backtest_pipeline.report.svg import Line, line_chart
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS

_TILES = {
    "total return": "total_return",
    "buy and hold": "benchmark_return",
    "Sharpe ratio": "sharpe",
    "maximum drawdown": "max_drawdown",
    "trades": "trade_count",
}
_TRADES = {
    "entry_ts": "entry",
    "exit_ts": "exit",
    "direction": "side",
    "entry_price": "entry price",
    "exit_price": "exit price",
    "size": "size",
    "pnl": "P&L",
    "pnl_pct": "return",
    "bars_held": "bars held",
    "exit_reason": "exit reason",
}
_SHARES = ("pnl_pct",)
_WIDTH = 1120
_SHOWN = (*METRICS, *FAMILY_METRICS)
_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class RunFacts:
    """What the page of a run shows.

    Attributes:
        title: strategy, asset and timeframe.
        subject: strategy with parameters, side, bars and days, in words.
        warnings: reasons to trust the numbers less; none where there is no reason.
        metrics: by name, None where undefined.
        undefined: why a metric is, by name.
        equity, benchmark, drawdown: by bar (tz-aware index).
        trades: the first ones, with the columns of `backtest_trades`.
        n_trades: how many there are.
        settings: costs, sizing, stops and the rest of the simulation's settings, by name.
        provenance: data, code and environment of the run, by name.
    """

    title: str
    subject: str
    warnings: Sequence[str]
    metrics: Mapping[str, float | None]
    undefined: Mapping[str, str]
    equity: pd.Series
    benchmark: pd.Series
    drawdown: pd.Series
    trades: Sequence[Mapping[str, Any]]
    n_trades: int
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]


class _MetricRow(NamedTuple):
    name: str
    value: str
    beside: str
    undefined: bool


def run_page(run: RunFacts) -> str:
    """The page as HTML."""
    percent = [("drawdown", 100 * run.drawdown)]
    return render(
        "run.html.j2",
        title=run.title,
        subject=run.subject,
        warnings=run.warnings,
        tiles=[_tile(title, name, run) for title, name in _TILES.items()],
        charts=[
            *_chart("Equity", [("buy and hold", run.benchmark), ("this run", run.equity)], 320),
            *_chart("Drawdown, in percent", percent, 190),
        ],
        metrics=[_metric(m.name, m.unit, run) for m in _SHOWN if m.name in run.metrics],
        trade_columns=_TRADES.values(),
        trades=[[_cell(name, trade.get(name)) for name in _TRADES] for trade in run.trades],
        n_trades=run.n_trades,
        settings=list(_flat("", run.settings)),
        provenance=list(_flat("", run.provenance)),
    )


def _chart(title: str, lines: Sequence[tuple[str, pd.Series]], height: int) -> Iterable[str]:
    """The chart, or nothing where no line has a value."""
    drawn = [Line(label, values) for label, values in lines if values.notna().any()]
    if drawn:
        yield line_chart(drawn, title, width=_WIDTH, height=height)


def _tile(title: str, name: str, run: RunFacts) -> Tile:
    value = run.metrics.get(name)
    below = run.undefined.get(name, "") if value is None else ""
    return Tile(title, shown(name, value), below)


def _metric(name: str, unit: str, run: RunFacts) -> _MetricRow:
    value = run.metrics[name]
    if value is None:
        return _MetricRow(name, _DASH, run.undefined.get(name, "undefined"), undefined=True)
    return _MetricRow(name, _number(value), "" if unit == "1" else unit, undefined=False)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        midnight = (value.hour, value.minute) == (0, 0)
        return f"{value:%Y-%m-%d}" if midnight else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:.2%}" if name in _SHARES else _number(value)
    return "" if value is None else str(value)


def _flat(above: str, facts: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Facts within facts under names with dots."""
    for name, fact in facts.items():
        if isinstance(fact, Mapping):
            yield from _flat(f"{above}{name}.", fact)
        elif fact is not None:
            yield f"{above}{name}", str(fact)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return _DASH
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"
