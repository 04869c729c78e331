"""The card of a run's curves on one axis of time: equity, drawdown, price with trades, exposure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.report.number_formats import day, minute, written
from backtest_pipeline.report.run_report.contents import (
    NOT_ASSESSED,
    Card,
    Closes,
    Fan,
    ReportedRun,
    ReportTable,
    RunSeries,
    TableRow,
    figure,
)
from backtest_pipeline.report.run_report.drawing import (
    LegendKey,
    area,
    chart,
    hover,
    line,
    mark,
    note,
    stretched,
)
from backtest_pipeline.report.run_report.scales import TimeScale, ValueScale

_EQUITY, _DRAWDOWN, _PRICE, _EXPOSURE = 340, 150, 260, 64
MOST_TRADES = 400
"""The last trades that are drawn, on the price and in order; more would hide it."""


def curve_cards(run: ReportedRun) -> Iterator[Card]:
    """Equity, drawdown, price and exposure, and their figures by quarter."""
    series = run.series
    if series is None:
        return
    x = TimeScale(int(series.ts[0]), int(series.ts[-1]))
    yield Card(
        "Equity", _under_equity(run), [_both_scales(run, series, x)], columns=12, anchor="equity"
    )
    as_table = _by_quarter(run, series)
    beside = None if series.has_exposure else as_table
    yield Card("Drawdown", "", [_underwater(series, x)], beside, columns=12)
    if run.closes is not None:
        yield Card("Price and trades", _under_price(run), [_price(run, run.closes, x)], columns=12)
    if series.has_exposure:
        yield Card("Exposure", "", [_exposure(series, x)], as_table, columns=12)


def _under_equity(run: ReportedRun) -> str:
    if run.fan is None:
        return NOT_ASSESSED if run.assess else ""
    return "Shaded: 5th to 95th and 25th to 75th percentile of the run's own days, resampled."


def _both_scales(run: ReportedRun, series: RunSeries, x: TimeScale) -> str:
    curves = [series.equity, *([series.benchmark] if series.has_benchmark else [])]
    drawn = np.concatenate(curves)
    linear = ValueScale.over(drawn, _EQUITY)
    if not (drawn > 0).all():
        return _equity(run, series, x, linear, "linear scale, as equity reaches zero")
    log = ValueScale.over(drawn, _EQUITY, log=True)
    return (
        '<div class="sw"><input type="radio" name="scale" id="log" checked><label for="log">log'
        '</label><input type="radio" name="scale" id="lin"><label for="lin">linear</label>'
        f'<div class="vlog">{_equity(run, series, x, log, "logarithmic scale")}</div>'
        f'<div class="vlin">{_equity(run, series, x, linear, "linear scale")}</div></div>'
    )


def _equity(run: ReportedRun, series: RunSeries, x: TimeScale, y: ValueScale, scale: str) -> str:
    paths, keys = [], [LegendKey("kr", "run")]
    if run.fan is not None:
        paths += _bands(run.fan, x, y)
        keys += [LegendKey("k1", "5th to 95th percentile"), LegendKey("k2", "25th to 75th")]
    label = f"Equity, {scale}. The run ends at {written(float(series.equity[-1]), 'count')}"
    if series.has_benchmark:
        paths.append(line(series.ts, series.benchmark, x, y, "lb"))
        keys.insert(1, LegendKey("kb", run.benchmark_name))
        label += f", {run.benchmark_name} at {written(float(series.benchmark[-1]), 'count')}"
    paths.append(line(series.ts, series.equity, x, y, "lr"))
    body = [stretched(paths, _EQUITY), *_months(run, series, x, _EQUITY)]
    return chart(body, f"{label}.", _EQUITY, y, x, keys=keys)


def _bands(fan: Fan, x: TimeScale, y: ValueScale) -> list[str]:
    return [
        area(fan.ts, fan.p05, fan.p95, x, y, "b1", 250),
        area(fan.ts, fan.p25, fan.p75, x, y, "b2", 250),
    ]


def _months(run: ReportedRun, series: RunSeries, x: TimeScale, height: int) -> Iterator[str]:
    """Figures of each month, or day, under the pointer."""
    held = run.benchmark_name if series.has_benchmark else ""
    start, start_held = float(series.equity[0]), float(series.benchmark[0])
    for first, end, name in x.periods():
        low, high = np.searchsorted(series.ts, (first, end))
        if low == high:
            continue
        last, last_held = float(series.equity[high - 1]), float(series.benchmark[high - 1])
        lines = [name, f"equity {written(last, 'count')} ({_change(last, start)})"]
        if held:
            lines.append(f"{held} {written(last_held, 'count')} ({_change(last_held, start_held)})")
        lines.append(f"deepest drawdown {written(series.drawdown[low:high].min(), 'percent')}")
        left = float(x.x(first))
        yield hover(left, float(x.x(end)) - left, height, "\n".join(lines))
        start, start_held = last, last_held


def _change(now: float, before: float) -> str:
    return written(now / before - 1 if before > 0 else None, "percent", signed=True)


def _underwater(series: RunSeries, x: TimeScale) -> str:
    y = ValueScale.over(series.drawdown, _DRAWDOWN, zero=True)
    deepest = int(series.drawdown.argmin())
    low, at = float(series.drawdown[deepest]), int(series.ts[deepest])
    zero = np.zeros(len(series.ts))
    body = [stretched([area(series.ts, series.drawdown, zero, x, y, "ar")], _DRAWDOWN)]
    label = "Drawdown: the run never falls below its highest equity."
    if low < 0:
        where, depth = float(x.x(at)), f"{written(low, 'percent')} on {day(at)}"
        label = f"Drawdown below the highest equity so far, at the deepest {depth}."
        pixels = float(y.y(low))
        body.append(mark("dot", where, pixels, "dot", depth))
        aside = 1.2 if where < 70 else -1.2
        body.append(note(where + aside, pixels + 4, depth))
    return chart(body, label, _DRAWDOWN, y, x, percent=True)


def _under_price(run: ReportedRun) -> str:
    words = []
    if len(run.trades) > MOST_TRADES:
        words.append(f"The last {MOST_TRADES:,} of {len(run.trades):,} trades are drawn.")
    if len(run.blocked) < run.n_blocked:
        words.append(f"The first {len(run.blocked):,} of {run.n_blocked:,} blocks are drawn.")
    if any(trade.get("entry_stop") is not None for trade in run.trades):
        words.append("Dashes: the stop, from entry to exit.")
    return " ".join(words)


def _price(run: ReportedRun, closes: Closes, x: TimeScale) -> str:
    trades = run.trades[-MOST_TRADES:]
    filled = [t[name] for t in trades for name in ("entry_price", "exit_price")]
    y = ValueScale.over(np.append(closes.close, filled), _PRICE, log=True)
    body = [stretched([line(closes.ts, closes.close, x, y, "lp")], _PRICE)]
    body += [_trade(trade, x, y) for trade in trades]
    body += [_blocked(event, x) for event in run.blocked]
    keys = [LegendKey("kb", "close")]
    if trades:
        keys += [LegendKey("kw", "gain"), LegendKey("kl", "loss")]
        keys += [LegendKey("kt", "\N{BLACK UP-POINTING TRIANGLE} long"),
                 LegendKey("kt", "\N{BLACK DOWN-POINTING TRIANGLE} short"),
                 LegendKey("kt", "\N{BLACK CIRCLE} exit")]  # fmt: skip
    if any(trade["is_open"] for trade in trades):
        keys.append(LegendKey("kt", "\N{WHITE CIRCLE} still open"))
    if run.blocked:
        keys.append(LegendKey("kx", "blocked entry"))
    label = f"Closes of {run.symbol} with {len(trades):,} trades"
    if run.blocked:
        label += f" and {run.n_blocked:,} blocked entries"
    return chart(body, f"{label}.", _PRICE, y, x, keys=keys)


def _trade(trade: Mapping[str, Any], x: TimeScale, y: ValueScale) -> str:
    """Entry and exit of a trade, joined by a line, and its stop; a ring where it is still open."""
    left, right = (float(x.x(trade[name])) for name in ("entry_ts", "exit_ts"))
    top, bottom = (float(y.y(trade[name])) for name in ("entry_price", "exit_price"))
    css = "w" if trade["pnl"] > 0 else "l"
    shape = "up" if trade["direction"] == "long" else "down"
    ended_by = "open" if trade["is_open"] else "exit"
    stop = ""
    if trade.get("entry_stop") is not None:
        set_at = float(y.y(trade["entry_stop"]))
        stood = trade.get("exit_stop")
        ended = set_at if stood is None else float(y.y(stood))
        stop = (
            f'<line class="st" x1="{left:.2f}%" y1="{set_at:.1f}" x2="{right:.2f}%" '
            f'y2="{ended:.1f}"/>'
        )
    return (
        f'<g class="k {css}"><title>{told(trade)}</title>'
        f'<line x1="{left:.2f}%" y1="{top:.1f}" x2="{right:.2f}%" y2="{bottom:.1f}"/>{stop}'
        f"{mark(shape, left, top, css)}{mark(ended_by, right, bottom, css)}</g>"
    )


def told(trade: Mapping[str, Any]) -> str:
    """A trade in three lines; of our own words and numbers alone, which need no escaping."""
    prices = " to ".join(written(trade[name], "price") for name in ("entry_price", "exit_price"))
    stamps = " to ".join(minute(trade[name]) for name in ("entry_ts", "exit_ts"))
    change = written(trade["pnl_pct"], "percent", signed=True)
    side = "long" if trade["direction"] == "long" else "short"
    ended = "still open" if trade["is_open"] else f"exit: {words_of(trade['exit_reason'])}"
    return f"#{int(trade['trade_no'])} {side} {stamps}\n{prices}: {change}\n{ended}"


def words_of(reason: str) -> str:
    """An exit reason as words, letters and spaces alone."""
    return "".join(c if c.isalnum() else " " for c in str(reason))


def _blocked(event: Mapping[str, Any], x: TimeScale) -> str:
    at = event["ts"]
    title = f"blocked {event['side']} on {minute(at)}: {words_of(event['reason'])}"
    return mark("tick", float(x.x(at)), _PRICE - 5, "x", title)


def _exposure(series: RunSeries, x: TimeScale) -> str:
    y = ValueScale.over(series.exposure, _EXPOSURE, zero=True)
    zero = np.zeros(len(series.ts))
    paths = [
        area(series.ts, zero, np.maximum(series.exposure, 0), x, y, "ap"),
        area(series.ts, np.minimum(series.exposure, 0), zero, x, y, "an"),
    ]
    least, most = (written(float(f(series.exposure)), "percent") for f in (np.min, np.max))
    label = f"Value of the position over equity, from {least} to {most}."
    keys = [
        LegendKey("kr", "long"),
        *([LegendKey("kl", "short")] if (series.exposure < 0).any() else []),
    ]
    return chart([stretched(paths, _EXPOSURE)], label, _EXPOSURE, y, x, percent=True, keys=keys)


def _by_quarter(run: ReportedRun, series: RunSeries) -> ReportTable:
    """The curves as a table, by calendar quarter, or by day of a short run."""
    months = series.ts.astype("M8[us]").astype("M8[M]").astype(np.int64)
    short_run = series.ts[-1] - series.ts[0] < 93 * DAY_US
    groups = series.ts // DAY_US if short_run else months // 3
    last = np.append(np.flatnonzero(np.diff(groups)), len(groups) - 1)
    rows = []
    for first, end in zip(np.append(0, last[:-1] + 1), last, strict=True):
        held = (
            [figure("benchmark", float(series.benchmark[end]), "count")]
            if series.has_benchmark
            else []
        )
        cells = [
            figure("equity", float(series.equity[end]), "count"),
            *held,
            figure("drawdown", series.drawdown[first : end + 1].min(), "percent"),
        ]
        if series.has_exposure:
            cells.append(figure("exposure", float(series.exposure[end]), "percent"))
        rows.append(TableRow(day(int(series.ts[end])), cells))
    held_head = [run.benchmark_name] if series.has_benchmark else []
    heads = ["until", "equity", *held_head, "deepest drawdown"]
    heads += ["exposure"] if series.has_exposure else []
    return ReportTable("These curves as a table", heads, rows, "fold")
