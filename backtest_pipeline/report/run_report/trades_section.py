"""A run's trades: in order, pain and profit, by side and exit, extremes, and all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from backtest_pipeline.report.number_formats import day, iso_of, minute, short, written
from backtest_pipeline.report.run_report.contents import (
    Card,
    Cell,
    ReportedRun,
    ReportTable,
    Section,
    TableRow,
    Words,
    figure,
)
from backtest_pipeline.report.run_report.curves import MOST_TRADES, words_of
from backtest_pipeline.report.run_report.drawing import LegendKey, bar, chart, mark
from backtest_pipeline.report.run_report.scales import ValueScale
from backtest_pipeline.report.run_report.time_section import growth_of
from backtest_pipeline.research.robustness.bootstrap import daily_equity

Trade = Mapping[str, Any]
_HEIGHT = 200
_MOST_POINTS = 1500
OPEN_TRADES = "Open trades are outside win rate and profit factor, and have a row of their own."
_COLUMNS = (
    *("side", "entry", "exit", "in at", "out at", "return", "profit", "costs", "worst", "best"),
    *("bars", "exit by"),
)


def trades_section(run: ReportedRun) -> Section:
    """The cards of a run's trades but the table of all, which the document cuts to its size."""
    if run.is_portfolio:
        return Section("trades", "Trades", [])
    if not run.trades:
        return Section("trades", "Trades", [Card("Trades", "No trade was made.", columns=12)])
    return Section("trades", "Trades", list(_cards(run)))


def _cards(run: ReportedRun) -> Iterator[Card]:
    yield Card("In order", _about_order(run.trades), [_in_order(run.trades)])
    yield Card(
        "Pain and profit",
        _about_pain(run.trades),
        [_pain_and_profit(run.trades)],
    )
    yield Card("By side and exit", OPEN_TRADES, table=_by_kind(run.trades))
    yield Card("Best, worst, streaks", "", table=_extremes(run))


def _about_order(trades: Sequence[Trade]) -> str:
    if len(trades) <= MOST_TRADES:
        return "Return of each trade, by its entry."
    return f"Return of each trade, by its entry; the last {MOST_TRADES:,} of {len(trades):,}."


def _about_pain(trades: Sequence[Trade]) -> str:
    about = "Right: what had to be endured (MAE). Up: what was earned."
    if len(trades) <= _MOST_POINTS:
        return about
    return f"{about} The last {_MOST_POINTS:,} of {len(trades):,}."


def _in_order(trades: Sequence[Trade]) -> str:
    shown = trades[-MOST_TRADES:]
    y = ValueScale.over(np.array([t["pnl_pct"] for t in shown]), _HEIGHT, zero=True)
    width = 100 / max(len(shown), 12)
    body = [
        bar(i * width + width * 0.1, width * 0.8, trade["pnl_pct"], y,
            "fw" if trade["pnl"] > 0 else "fl",
            f"#{trade['trade_no']} {trade['direction']}: "
            f"{written(trade['pnl_pct'], 'percent', signed=True)}")
        for i, trade in enumerate(shown)
    ]  # fmt: skip
    best = max(t["pnl_pct"] for t in shown)
    worst = min(t["pnl_pct"] for t in shown)
    label = (
        f"Returns of {len(shown):,} trades, from {written(worst, 'percent', signed=True)} to "
        f"{written(best, 'percent', signed=True)}."
    )
    keys = [LegendKey("kw", "gain"), LegendKey("kl", "loss")]
    return chart(body, label, _HEIGHT, y, percent=True, keys=keys)


def _pain_and_profit(trades: Sequence[Trade]) -> str:
    shown = trades[-_MOST_POINTS:]
    pain = np.array([-abs(t["mae"]) for t in shown])
    gain = np.array([t["pnl_pct"] for t in shown])
    y = ValueScale.over(gain, _HEIGHT, zero=True)
    most = max(float(-pain.min()), 0.01)
    body = [_excursion(*point, most, y) for point in zip(shown, pain, gain, strict=True)]
    for tick in ValueScale(0, most, 1).ticks(5):
        text = f"\N{MINUS SIGN}{short(round(100 * tick, 9))}%" if tick else "0%"
        body.append(
            f'<text class="a" x="{2 + 95 * tick / most:.2f}%" y="{_HEIGHT + 17}" '
            f'text-anchor="middle">{text}</text>'
        )
    label = f"Worst excursion against return of {len(shown):,} trades."
    keys = [
        LegendKey("kt", "\N{BLACK UP-POINTING TRIANGLE} long"),
        LegendKey("kt", "\N{BLACK DOWN-POINTING TRIANGLE} short"),
    ]
    return chart(body, label, _HEIGHT + 18, y, percent=True, keys=keys)


def _excursion(trade: Trade, pain: float, gain: float, most: float, y: ValueScale) -> str:
    shape, css = "up" if trade["direction"] == "long" else "down", "w" if gain > 0 else "l"
    told = f"{written(gain, 'percent', signed=True)}, worst {written(pain, 'percent')}"
    at = 2 + 95 * -pain / most
    return mark(shape, at, float(y.y(gain)), css, f"#{trade['trade_no']}: {told}")


def _by_kind(trades: Sequence[Trade]) -> ReportTable:
    closed = [t for t in trades if not t["is_open"]]
    groups: list[tuple[str, list[Trade]]] = [("closed", closed)]
    groups += [(side, [t for t in closed if t["direction"] == side]) for side in ("long", "short")]
    groups += [
        (f"exit: {words_of(reason)}", [t for t in closed if t["exit_reason"] == reason])
        for reason in sorted({str(t["exit_reason"]) for t in closed})
    ]
    groups.append(("still open", [t for t in trades if t["is_open"]]))
    rows = [TableRow(name, _figures(group)) for name, group in groups if group]
    heads = ["", "trades", "won", "average", "profit", "factor", "bars"]
    return ReportTable("Trades by side and exit reason", heads, rows)


def _figures(trades: Sequence[Trade]) -> list[Cell]:
    pnl = np.array([t["pnl"] for t in trades])
    lost = -float(pnl[pnl < 0].sum())
    factor = float(pnl[pnl > 0].sum()) / lost if lost > 0 else None
    return [
        figure("trades", float(len(trades)), "count"),
        figure("won", float((pnl > 0).mean()), "percent"),
        figure("average", float(np.mean([t["pnl_pct"] for t in trades])), "percent", signed=True),
        figure("profit", float(pnl.sum()), "count", signed=True),
        figure("factor", factor, "ratio"),
        figure("bars", float(np.mean([t["bars_held"] for t in trades])), "number"),
    ]


def _extremes(run: ReportedRun) -> ReportTable:
    rows = list(_of_trades(run.trades))
    if run.series is not None:
        daily = daily_equity(run.series.ts, run.series.equity)
        returns = daily.returns
        if len(returns):
            rows += [
                _day("best day", daily.day[1:], returns, int(returns.argmax())),
                _day("worst day", daily.day[1:], returns, int(returns.argmin())),
            ]
            months = growth_of(daily, "M")
            for name, pick in (("best month", max), ("worst month", min)):
                month = pick(months, key=lambda m: months[m])
                cells = [figure("month", months[month], "percent", signed=True), Words(month)]
                rows.append(TableRow(name, cells))
    return ReportTable("Best, worst and streaks", ["", "", ""], rows)


def _of_trades(trades: Sequence[Trade]) -> Iterator[TableRow]:
    picks: tuple[tuple[str, Callable[..., Any]], ...] = (("best trade", max), ("worst trade", min))
    for name, pick in picks:
        trade = pick(trades, key=lambda t: t["pnl_pct"])
        made = figure("trade", trade["pnl_pct"], "percent", signed=True)
        yield TableRow(name, [made, Words(f"#{trade['trade_no']}, {day(trade['entry_ts'])}")])
    for name, won in (("most gains in a row", True), ("most losses in a row", False)):
        runs = groupby(t["pnl"] > 0 for t in trades if not t["is_open"])
        longest = max((sum(1 for _ in group) for is_won, group in runs if is_won == won), default=0)
        yield TableRow(name, [figure("streak", float(longest), "count"), Words("closed trades")])


def _day(name: str, days: np.ndarray, returns: np.ndarray, at: int) -> TableRow:
    when = str(days[at].astype("M8[D]"))
    return TableRow(name, [figure("day", float(returns[at]), "percent", signed=True), Words(when)])


def trades_columns(trades: Sequence[Trade]) -> tuple[str, ...]:
    """Heads of the table of all trades, with that of the asset where they are in several."""
    return ("asset", *_COLUMNS) if _are_in_several(trades) else _COLUMNS


def trade_rows(trades: Sequence[Trade], most: int | None = None) -> Iterator[TableRow]:
    """The first trades as rows of the table of all, under `trades_columns`."""
    in_several = _are_in_several(trades)
    for trade in trades[:most]:
        row = _trade_row(trade)
        yield TableRow(row.head, [Words(trade["symbol"]), *row.cells]) if in_several else row


def _are_in_several(trades: Sequence[Trade]) -> bool:
    return len({trade.get("symbol") for trade in trades}) > 1


def _trade_row(trade: Trade) -> TableRow:
    costs = trade["fees"] + trade["slippage_cost"] + (trade.get("funding") or 0.0)
    cells: list[Cell] = [
        Words(str(trade["direction"])),
        Words(minute(trade["entry_ts"])),
        Words(minute(trade["exit_ts"])),
        figure("entry_price", trade["entry_price"], "price"),
        figure("exit_price", trade["exit_price"], "price"),
        figure("pnl_pct", trade["pnl_pct"], "percent", signed=True),
        figure("pnl", trade["pnl"], "count", signed=True)._replace(css=""),
        figure("costs", costs, "count"),
        figure("mae", -abs(trade["mae"]), "percent"),
        figure("mfe", trade["mfe"], "percent"),
        figure("bars_held", float(trade["bars_held"]), "count"),
        Words("still open" if trade["is_open"] else words_of(trade["exit_reason"])),
    ]
    return TableRow(str(trade["trade_no"]), cells)


def trades_csv(trades: Sequence[Trade]) -> str:
    """All trades as CSV, with the columns of `backtest_trades`; stamps in ISO 8601, UTC."""
    out = io.StringIO()
    if trades:
        writer = csv.DictWriter(out, list(trades[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {**trade, **{name: iso_of(trade[name]) for name in ("entry_ts", "exit_ts")}}
            for trade in trades
        )
    return out.getvalue()


def open_trades_note(run: ReportedRun) -> str:
    """What the tile of trades says below its count."""
    held = sum(bool(trade["is_open"]) for trade in run.trades)
    won, factor = run.metrics.get("win_rate"), run.metrics.get("profit_factor")
    closed = f"{written(won, 'percent')} won, factor {written(factor, 'ratio')}"
    return f"{closed}; {held} open, not counted there" if held else closed
