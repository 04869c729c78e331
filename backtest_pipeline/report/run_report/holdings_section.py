"""What a portfolio, or a book of several assets, held: weights, risk, correlations and the gain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np

from backtest_pipeline.report.number_formats import Kind, day, minute, written
from backtest_pipeline.report.run_report.contents import (
    Card,
    Figure,
    Holdings,
    ReportedRun,
    ReportTable,
    Section,
    TableRow,
    figure,
)
from backtest_pipeline.report.run_report.drawing import area, stretched
from backtest_pipeline.report.run_report.scales import TimeScale, ValueScale
from backtest_pipeline.report.run_report.table_markup import figure_markup
from backtest_pipeline.report.run_report.trust_section import heat
from backtest_pipeline.research.portfolio.diversification import clusters

_STRIP, _TREE = 28, 90
_MOST_MEMBERS, _MOST_CORRELATED, _MOST_HELD = 24, 20, 2000
_GAINED: Mapping[str, tuple[str, Kind, str]] = {
    "sharpe": ("Sharpe ratio of the portfolio", "ratio", ""),
    "mean_member_sharpe": (
        "Mean Sharpe ratio of its members",
        "ratio",
        "Each over its own life.",
    ),
    "diversification_benefit": ("What diversification gained", "ratio", "The first less the mean."),
    "mean_pairwise_correlation": (
        "Mean correlation of two members",
        "ratio",
        "Of the returns by bar that both have.",
    ),
    "diversification_ratio": (
        "Diversification ratio",
        "ratio",
        "Sum of the members' volatilities within the portfolio, over its own.",
    ),
    "effective_bets": (
        "Effective number of bets",
        "number",
        "The square of that ratio: n for n independent members of one volatility, 1 for twins.",
    ),
    "rebalance_cost": ("Paid for rebalancing", "count", "Quote currency."),
    "mean_turnover": ("Moved at a rebalance", "percent", "Mean, after the first."),
}


def holdings_section(run: ReportedRun) -> Section:
    """Weights of a portfolio or cross-section, or the positions of a book; else no card."""
    held = run.holdings
    if held is not None and len(held.ts):
        return Section("holdings", "Holdings", list(_cards(run, held)))
    positions = _positions(run)
    return Section("holdings", "Holdings", [positions] if positions else [])


def _cards(run: ReportedRun, held: Holdings) -> Iterator[Card]:
    first: list[int] = np.argsort(-np.abs(held.weights).mean(axis=0), kind="stable").tolist()
    shown = first[:_MOST_MEMBERS]
    span = f"From {day(int(held.ts[0]))} to {day(held.until)}"
    words = f"{span}, on one scale; at the right the last."
    if len(shown) < len(first):
        words += f" The {len(shown):,} largest of {len(first):,}."
    yield Card("Weights over time", words, [_strips(held, shown)], columns=12)
    if held.risk is not None:
        yield Card(
            "Risk contributions",
            "Share of the variance of the portfolio's returns; a negative one makes it smaller.",
            [_risk(held, first[:_MOST_MEMBERS])],
        )
    if any(run.metrics.get(name) is not None for name in _GAINED if name != "sharpe"):
        yield Card("What diversification gained", "", table=_gained(run))
    if held.correlations is not None and len(held.members) > 1:
        yield _correlated(held, sorted(first[:_MOST_CORRELATED]), len(first))


def _strips(held: Holdings, shown: Sequence[int]) -> str:
    """A row a member: name, weight over time as an area of steps, the last weight, the mean."""
    x = TimeScale(int(held.ts[0]), held.until)
    y = ValueScale.over(1.2 * np.append(held.weights[:, shown], 0.0), _STRIP, zero=True)
    edges = np.append(np.repeat(held.ts, 2)[1:], held.until)
    rows = []
    for i in shown:
        steps, name = np.repeat(held.weights[:, i], 2), held.members[i]
        zero = np.zeros(len(steps))
        paths = [area(edges, zero, np.maximum(steps, 0), x, y, "ap")]
        if (steps < 0).any():
            paths.append(area(edges, np.minimum(steps, 0), zero, x, y, "an"))
        last, mean = float(held.weights[-1, i]), float(held.weights[:, i].mean())
        label = f"Weight of {name}, at last {written(last, 'percent')}"
        rows.append(
            _row(
                name, label, stretched(paths, _STRIP), figure("weight", last, "percent"),
                figure("mean_weight", mean, "percent"), "mean ",
            )
        )  # fmt: skip
    return "".join(rows)


def _risk(held: Holdings, shown: Sequence[int]) -> str:
    assert held.risk is not None  # noqa: S101  (the caller has looked)
    known = held.risk[np.isfinite(held.risk)]
    low, high = float(min(known.min(initial=0.0), 0.0)), float(max(known.max(initial=0.0), 0.01))
    rows = []
    for i in shown:
        value = float(held.risk[i]) if np.isfinite(held.risk[i]) else None
        ends = sorted((0.0, value or 0.0))
        left, right = (100 * (end - low) / (high - low) for end in ends)
        css = "fl" if (value or 0) < 0 else "fr"
        bar = f'<rect class="{css}" x="{left:.2f}%" width="{right - left:.2f}%" y="7" height="14"/>'
        label = f"Risk contribution of {held.members[i]}: {written(value, 'percent')}"
        mean = figure("mean_weight", float(held.weights[:, i].mean()), "percent")
        made = figure("risk_share", value, "percent")
        rows.append(_row(held.members[i], label, bar, made, mean, "weight "))
    return "".join(rows)


def _row(name: str, label: str, body: str, made: Figure, beside: Figure, before: str) -> str:
    return (
        f'<div class="iv"><span>{escape(name)}</span>'
        f'<svg role="img" aria-label="{escape(label)}" width="100%" height="{_STRIP}">{body}</svg>'
        f"{figure_markup(made, 'b')}<small>{before}{figure_markup(beside)}</small></div>"
    )


def _gained(run: ReportedRun) -> ReportTable:
    rows = [
        TableRow(
            words,
            [figure(name, run.metrics.get(name), kind, signed=name == "diversification_benefit")],
            f"undefined: {run.undefined[name]}" if name in run.undefined else about,
        )
        for name, (words, kind, about) in _GAINED.items()
        if name in run.metrics
    ]
    return ReportTable("What diversification gained", ["", "portfolio"], rows, "mg")


def _correlated(held: Holdings, shown: Sequence[int], n_members: int) -> Card:
    """Correlations as a table in the order of the tree of their clusters, which is above it."""
    assert held.correlations is not None  # noqa: S101  (the caller has looked)
    matrix = np.array([[held.correlations[i, j] for j in shown] for i in shown])
    tree = clusters(matrix)
    order: list[int] = tree.order.tolist()
    names = [held.members[shown[i]] for i in order]
    rows = [
        TableRow(
            names[row],
            [_correlation(float(matrix[i, j]), same=i == j) for j in order],
        )
        for row, i in enumerate(order)
    ]
    width = 2000 / len(names)
    top = tree.heights.max() or 1.0
    corners = np.stack([tree.across * width, 1000 - 960 * tree.heights / top], axis=-1)
    paths = [
        f'<path class="lp" d="M{" ".join(f"{a:.0f} {b:.0f}" for a, b in join)}"/>'
        for join in corners.tolist()
    ]
    about = (
        "Of returns by bar. The tree stands over its members in the order of the table, and joins "
        "two the lower the more alike they are."
    )
    if len(shown) < n_members:
        about += f" The {len(shown):,} largest of {n_members:,}."
    listed = ", ".join(names)
    picture = (
        f'<svg role="img" aria-label="{escape(f"Clusters of members, in this order: {listed}")}" '
        f'width="100%" height="{_TREE}">{stretched(paths, _TREE)}</svg>'
    )
    table = ReportTable("Correlations of members", ["", *names], rows, "mt")
    return Card("Correlations", about, [picture], table, columns=12)


def _correlation(value: float, *, same: bool) -> Figure:
    known = None if np.isnan(value) else float(value)
    made = figure("correlation", known, "ratio")
    return made if same else made._replace(css=heat(known, 1.0))


def _positions(run: ReportedRun) -> Card | None:
    """The positions of a book by asset, each from entry to exit; None for one asset."""
    trades = [t for t in run.trades if t.get("symbol")]
    by_asset = {name: list(own) for name, own in groupby(sorted(trades, key=_symbol), key=_symbol)}
    if len(by_asset) < 2:
        return None
    x = TimeScale(min(t["entry_ts"] for t in trades), max(t["exit_ts"] for t in trades))
    most = sorted(by_asset, key=lambda name: -len(by_asset[name]))[:_MOST_MEMBERS]
    each = _MOST_HELD // len(most)
    rows = []
    for name in sorted(most):
        own = by_asset[name]
        total = sum(t["pnl"] for t in own)
        label = f"{len(own):,} trades of {name}, {written(total, 'count')} in all"
        body = "".join(_held(trade, x) for trade in own[-each:])
        made = figure("pnl", total, "count", signed=True)
        count = figure("asset_trades", float(len(own)), "count")
        rows.append(_row(name, label, body, made, count, "trades "))
    words = (
        f"From {day(x.first)} to {day(x.last)}; blue: long, orange: short. At the right, profit."
    )
    if len(most) < len(by_asset):
        words += f" The {len(most):,} most traded of {len(by_asset):,}."
    if any(len(by_asset[name]) > each for name in most):
        words += f" The last {each:,} trades of each."
    return Card("Positions by asset", words, ["".join(rows)], columns=12)


def _symbol(trade: Mapping[str, Any]) -> str:
    return str(trade["symbol"])


def _held(trade: Mapping[str, Any], x: TimeScale) -> str:
    left, right = (float(x.x(trade[name])) for name in ("entry_ts", "exit_ts"))
    css = "fr" if trade["direction"] == "long" else "fl"
    title = (
        f"{trade['direction']} from {minute(trade['entry_ts'])} to {minute(trade['exit_ts'])}: "
        f"{written(trade['pnl_pct'], 'percent', signed=True)}"
    )
    return (
        f'<rect class="{css}" x="{left:.2f}%" width="{max(right - left, 0.15):.2f}%" y="7" '
        f'height="14"><title>{title}</title></rect>'
    )
