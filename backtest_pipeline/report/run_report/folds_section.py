"""A walk-forward's folds: on the axis of time, what was chosen, and training against test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backtest_pipeline.report.number_formats import day, written
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
from backtest_pipeline.report.run_report.drawing import LegendKey, chart, line, mark, stretched
from backtest_pipeline.report.run_report.scales import TimeScale, ValueScale

Fold = Mapping[str, Any]
_ROW, _CHOSEN, _SCATTER = 12, 90, 220
_MOST_DRAWN = 80


def folds_section(run: ReportedRun) -> Section:
    """The folds of a walk-forward; no card for any other run."""
    return Section("folds", "Folds", list(_cards(run.folds)) if run.folds else [])


def _cards(folds: Sequence[Fold]) -> Iterator[Card]:
    first = min(fold["train_start"] for fold in folds)
    x = TimeScale(first, max(fold["test_end"] for fold in folds))
    shown = folds[-_MOST_DRAWN:]
    about = "Each row is a fold: parameters are chosen on the grey stretch, and traded on the blue."
    if len(shown) < len(folds):
        about += f" The last {len(shown):,} of {len(folds):,}."
    yield Card("Folds in time", about, [_windows(shown, x)], columns=12)
    names = sorted({name for fold in folds for name in fold["params"] or {}})
    pictures = [_chosen(folds, name, x) for name in names]
    yield Card("Parameters chosen over time", "", pictures)
    yield Card(
        "Training against test",
        "Sharpe ratio of each fold; on the line, the test kept all that training promised.",
        [_scatter(folds)],
    )
    yield Card("All folds", "", table=_table(folds), columns=12)


def _windows(folds: Sequence[Fold], x: TimeScale) -> str:
    height = _ROW * len(folds)
    y = ValueScale(0, len(folds), height)
    body = []
    for row, fold in enumerate(folds):
        title = f"fold {fold['fold'] + 1}: {_span(fold, 'train')}, traded {_span(fold, 'test')}"
        for part, css in (("train", "fb"), ("test", "fr")):
            left, right = (float(x.x(fold[f"{part}_{end}"])) for end in ("start", "end"))
            body.append(
                f'<rect class="{css}" x="{left:.2f}%" width="{max(right - left, 0.1):.2f}%" '
                f'y="{row * _ROW + 2}" height="{_ROW - 4}"><title>{title}</title></rect>'
            )
    keys = [LegendKey("kb", "training"), LegendKey("kr", "test")]
    label = f"{len(folds):,} folds from {day(x.first)} to {day(x.last)}."
    return chart(body, label, height, y, x, keys=keys, values=False)


def _span(fold: Fold, part: str) -> str:
    return f"{day(fold[f'{part}_start'])} to {day(fold[f'{part}_end'])}"


def _chosen(folds: Sequence[Fold], name: str, x: TimeScale) -> str:
    """A parameter as a staircase: its value in each test window; a gap where none was chosen."""
    chosen = np.array([_number((fold["params"] or {}).get(name)) for fold in folds])
    edges = np.array([[fold["test_start"], fold["test_end"]] for fold in folds])
    y = ValueScale.over(chosen, _CHOSEN)
    path = line(edges.reshape(-1), np.repeat(chosen, 2), x, y, "lr")
    known = chosen[np.isfinite(chosen)]
    told = "never chosen" if not len(known) else (
        f"from {written(float(known.min()), 'number')} to {written(float(known.max()), 'number')}"
    )  # fmt: skip
    picture = chart([stretched([path], _CHOSEN)], f"{name}: {told}.", _CHOSEN, y, x)
    words = "".join(c if c.isalnum() or c in "._-" else " " for c in name)
    return f'<p class="sub">{words}</p>{picture}'


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _scatter(folds: Sequence[Fold]) -> str:
    pairs = [(fold["fold"], fold["train_sharpe"], fold["test_sharpe"]) for fold in folds]
    known = [pair for pair in pairs if None not in pair]
    if not known:
        return ""
    values = np.array([[train, test] for _, train, test in known])
    y = ValueScale.over(values[:, 1], _SCATTER, zero=True)
    across = ValueScale.over(values[:, 0], 1, zero=True)

    def at(train: float) -> float:
        return float(100 * (1 - across.y(train)))

    low, high = max(across.low, y.low), min(across.high, y.high)
    body = []
    if high > low:
        body.append(
            f'<line class="z" x1="{at(low):.2f}%" y1="{float(y.y(low)):.1f}" '
            f'x2="{at(high):.2f}%" y2="{float(y.y(high)):.1f}"/>'
        )
    for fold, train, test in known:
        title = f"fold {fold + 1}: {written(train, 'ratio')} trained, {written(test, 'ratio')}"
        body.append(mark("dot", at(train), float(y.y(test)), "dot", f"{title} tested"))
    body += [
        f'<text class="a" x="{at(tick):.2f}%" y="{_SCATTER + 17}" text-anchor="middle">'
        f"{written(tick, 'ratio')}</text>"
        for tick in across.ticks(5)
    ]
    better = int((values[:, 1] >= values[:, 0]).sum())
    label = (
        f"Sharpe ratio in training (right) and test (up) of {len(known):,} folds; in {better:,} "
        "the test was at least as good."
    )
    return chart(body, label, _SCATTER + 18, y)


def _table(folds: Sequence[Fold]) -> ReportTable:
    rows = []
    for fold in folds:
        chosen = ", ".join(f"{name} {value}" for name, value in (fold["params"] or {}).items())
        cells: list[Cell] = [
            Words(_span(fold, "test")),
            Words(chosen or "none"),
            figure("train_sharpe", fold["train_sharpe"], "ratio"),
            figure("test_sharpe", fold["test_sharpe"], "ratio"),
            figure("test_total_return", fold["test_total_return"], "percent", signed=True),
            figure("test_max_drawdown", fold["test_max_drawdown"], "percent"),
            figure("test_trade_count", fold["test_trade_count"], "count"),
        ]
        rows.append(TableRow(f"{fold['fold'] + 1}", cells))
    heads = ["#", "test", "chosen", "trained", "tested", "return", "drawdown", "trades"]
    return ReportTable("All folds", heads, rows)
