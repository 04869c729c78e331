"""One run as an HTML page of its own: no script, no network, nothing to load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from string import Template
from typing import Any

import pandas as pd

from backtest_pipeline.report.style import STYLE
from backtest_pipeline.report.svg import Line, line_chart
from backtest_pipeline.simulation.metrics.metrics import METRICS

_TILES = (
    ("total return", "total_return"),
    ("buy and hold", "benchmark_return"),
    ("Sharpe ratio", "sharpe"),
    ("largest drawdown", "max_drawdown"),
    ("trades", "trade_count"),
)
_TRADES = {
    "entry_ts": "entry",
    "exit_ts": "exit",
    "direction": "side",
    "entry_price": "entry price",
    "exit_price": "exit price",
    "size": "size",
    "pnl": "profit",
    "pnl_pct": "return",
    "bars_held": "bars",
    "exit_reason": "exit reason",
}
_SHARES = ("pnl_pct",)
_WIDTH = 1120


@dataclass(frozen=True)
class RunFacts:
    """What the page tells.

    Attributes:
        title: strategy, asset and timeframe.
        subject: which bars were traded, in words.
        warnings: why the numbers are less than they seem; none where they are not.
        metrics: by name, None where undefined.
        undefined: why a metric is, by name.
        equity, benchmark, drawdown: by bar (tz-aware index).
        trades: the first ones, with the columns of `backtest_trades`.
        n_trades: how many there are.
        assumed: costs, sizing, stops and all else, by name.
        provenance: what the run was made from and by, by name.
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
    assumed: Mapping[str, Any]
    provenance: Mapping[str, Any]


def run_page(run: RunFacts) -> str:
    """The page."""
    return _PAGE.substitute(
        style=STYLE,
        title=escape(run.title),
        subject=escape(run.subject),
        warnings="".join(f'<p class="warning">{escape(told)}</p>' for told in run.warnings),
        tiles="".join(_tile(title, name, run) for title, name in _TILES),
        equity=_chart("Equity", [("buy and hold", run.benchmark), ("this run", run.equity)], 320),
        drawdown=_chart(
            "Drawdown, in percent",
            [("drawdown", 100 * run.drawdown)],
            190,
        ),
        metrics="".join(_metric(m.name, m.unit, run) for m in METRICS if m.name in run.metrics),
        trades=_trades(run),
        assumed=_facts(run.assumed),
        provenance=_facts(run.provenance),
    )


def _chart(title: str, lines: Sequence[tuple[str, pd.Series]], height: int) -> str:
    drawn = [Line(label, values) for label, values in lines if values.notna().any()]
    if not drawn:
        return ""
    return line_chart(drawn, title, width=_WIDTH, height=height)


def _tile(title: str, name: str, run: RunFacts) -> str:
    value = run.metrics.get(name)
    below = run.undefined.get(name, "") if value is None else ""
    return (
        f'<div class="tile"><span>{escape(title)}</span><b>{_shown(name, value)}</b>'
        f"<small>{escape(below)}</small></div>"
    )


def _metric(name: str, unit: str, run: RunFacts) -> str:
    value = run.metrics[name]
    beside = unit if value is not None else run.undefined.get(name, "undefined")
    beside = "" if beside == "1" else beside
    kind = "" if value is not None else ' class="undefined"'
    return (
        f"<tr{kind}><th>{escape(name)}</th><td>{_number(value)}</td><td>{escape(beside)}</td></tr>"
    )


def _trades(run: RunFacts) -> str:
    if not run.trades:
        return "<p>No trade was made.</p>"
    head = "".join(f"<th>{escape(title)}</th>" for title in _TRADES.values())
    rows = "".join(
        f"<tr>{''.join(f'<td>{_cell(name, trade.get(name))}</td>' for name in _TRADES)}</tr>"
        for trade in run.trades
    )
    shown = len(run.trades)
    told = f"The first {shown:,} of {run.n_trades:,}." if shown < run.n_trades else ""
    return (
        f'<div class="card"><table class="trades"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p>{told}</p>"
    )


def _cell(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        midnight = (value.hour, value.minute) == (0, 0)
        return escape(f"{value:%Y-%m-%d}" if midnight else f"{value:%Y-%m-%d %H:%M}")
    if isinstance(value, float):
        return f"{value:.2%}" if name in _SHARES else _number(value)
    return escape("" if value is None else str(value))


def _facts(facts: Mapping[str, Any]) -> str:
    return "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _flat("", facts)
    )


def _flat(above: str, facts: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Facts within facts under names with dots."""
    for name, fact in facts.items():
        if isinstance(fact, Mapping):
            yield from _flat(f"{above}{name}.", fact)
        elif fact is not None:
            yield f"{above}{name}", str(fact)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "&ndash;"
    unit = next((metric.unit for metric in METRICS if metric.name == name), "")
    return f"{value:.1%}" if unit.startswith("fraction") else _number(value)


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "&ndash;"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"


_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
$style  .card { padding: 12px; overflow-x: auto; margin-bottom: 12px; }
  .card svg { display: block; width: 100%; height: auto; }
  th, td { padding: 4px 12px; border-bottom: 1px solid #eaeef2; text-align: right;
           white-space: nowrap; }
  thead th { color: #57606a; border-bottom: 1px solid #d0d7de; font-weight: 600; }
  .metrics { columns: 2; column-gap: 28px; }
  .metrics tr { break-inside: avoid; }
  .metrics th { text-align: left; font-weight: 400; }
  .metrics td:last-child { text-align: left; color: #57606a; font-size: 13px;
                           white-space: normal; width: 46%; }
  .undefined th { color: #57606a; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; }
  dt { color: #57606a; }
  dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
  @media (max-width: 760px) { .metrics { columns: 1; } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>$subject</p>
$warnings
<div class="tiles">$tiles</div>
<div class="card">$equity</div>
<div class="card">$drawdown</div>
<h2>Metrics</h2>
<div class="card metrics"><table><tbody>$metrics</tbody></table></div>
<h2>Trades</h2>
$trades
<h2>Simulation settings</h2>
<div class="card"><dl>$assumed</dl></div>
<h2>Data, code and environment</h2>
<div class="card"><dl>$provenance</dl></div>
</main>
</body>
</html>
""")
