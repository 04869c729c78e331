"""How far to trust a run: intervals, random entries, other costs, and checks with chips."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np

from backtest_pipeline.report.number_formats import DASH, kind_of, short, written
from backtest_pipeline.report.run_report.contents import (
    NOT_ASSESSED,
    Card,
    Cell,
    ReportedRun,
    ReportTable,
    Section,
    TableRow,
    Words,
    figure,
)
from backtest_pipeline.report.run_report.drawing import bar, chart, note
from backtest_pipeline.report.run_report.scales import ValueScale
from backtest_pipeline.report.run_report.table_markup import figure_markup
from backtest_pipeline.report.run_report.verdict import (
    ASSESSED,
    CHECKS,
    NAMES,
    chip_of,
    figures_of,
    kind_of_figure,
)

_INTERVALS = {
    "total_return": "Total return",
    "sharpe": "Sharpe ratio",
    "max_drawdown": "Largest drawdown",
}
_BINS, _HISTOGRAM = 40, 190
_NEARLY_ALWAYS = 0.95
_LOST = -1.0  # total return of an account that lost everything
_AXIS_FROM = -0.999  # deeper losses stand in the first bar, or the axis would be theirs alone


def trust_section(run: ReportedRun) -> Section:
    """Four cards; those that are not assessed say by which command they are, or are left out."""
    return Section("trust", "How far to trust it", list(_cards(run)))


def _cards(run: ReportedRun) -> Iterator[Card]:
    if run.intervals is None and run.assess:
        yield Card("Resampled", NOT_ASSESSED)
    elif run.intervals is not None:
        yield Card(
            "Resampled",
            "Dot: this run. Bar: 90 % interval of its own days, resampled in blocks. Line: zero.",
            [_interval_rows(run)],
        )
    if run.doubts is None and run.assess:
        yield Card("Against random entries", NOT_ASSESSED)
        yield Card("Under other costs", NOT_ASSESSED)
    elif run.doubts is not None:
        yield _against_random(run)
        yield Card(
            "Under other costs",
            "Total return by fee (rows) and slippage (columns), basis points a side; framed: this "
            "run.",
            table=_cost_grid(run),
        )
    yield Card("Checks", "Every bound stands in docs/report.md.", table=_checks(run))


def _interval_rows(run: ReportedRun) -> str:
    assert run.intervals is not None  # noqa: S101  (the caller has looked)
    return "".join(
        _interval(run, name, title, *run.intervals[name])
        for name, title in _INTERVALS.items()
        if name in run.intervals
    )


def _interval(
    run: ReportedRun, name: str, title: str, low: float | None, high: float | None
) -> str:
    own, kind = run.metrics.get(name), kind_of(name)
    text = f"{written(low, kind)} to {written(high, kind)}"
    picture = ""
    if low is not None and high is not None and own is not None:
        ends = np.array([low, high, own, 0.0])
        # A total return is a growth: its distances are those of logarithms.
        shift = ends if kind == "ratio" or ends.min() <= -1 else np.log1p(ends)
        left, right, at, zero = ((shift - shift.min()) / (np.ptp(shift) or 1) * 92 + 4).tolist()
        picture = (
            f'<line class="rf" x1="{zero:.1f}%" x2="{zero:.1f}%" y1="2" y2="26"/>'
            f'<line class="ib" x1="{left:.1f}%" x2="{right:.1f}%" y1="14" y2="14"/>'
            f'<circle class="dot" cx="{at:.1f}%" cy="14" r="5"/>'
        )
    label = f"{title} {written(own, kind)}, 90 % interval {text}"
    ends_of = (figure(f"{name}_{end}", v, kind) for end, v in (("low", low), ("high", high)))
    return (
        f'<div class="iv"><span>{title}</span>'
        f'<svg role="img" aria-label="{escape(label)}" width="100%" height="28">{picture}</svg>'
        f"{figure_markup(figure(name, own, kind), 'b')}"
        f"<small>{' to '.join(map(figure_markup, ends_of))}</small></div>"
    )


def _against_random(run: ReportedRun) -> Card:
    assert run.doubts is not None  # noqa: S101  (the caller has looked)
    returns, own = run.doubts.random_entries, run.metrics.get("total_return")
    reason = run.doubts.numbers["undefined"].get("p_random_entries")
    if reason or not len(returns) or own is None:
        return Card("Against random entries", f"Undefined: {reason or 'no draw ended'}.")
    ruined = float((returns <= _LOST).mean())
    about = (
        f"The same rule on {len(returns):,} markets of the same bars in random order: "
        f"{written(run.doubt('p_random_entries'), 'percent')} did as well, "
        f"{written(ruined, 'percent')} lost everything. "
        "Axis: end over start, 1\N{MULTIPLICATION SIGN} is no gain."
    )
    remarks = []
    if (run.metrics.get("exposure") or 0) > _NEARLY_ALWAYS:
        remarks.append("The run is nearly always in position, so that this comparison says little.")
    return Card("Against random entries", about, [_histogram(returns, own)], remarks=remarks)


def _histogram(returns: np.ndarray, own: float) -> str:
    """Counts of random entries by growth, on a logarithmic axis; the ruined stand apart."""
    ruined = returns <= _LOST
    logs = np.log1p(np.maximum(returns[~ruined], _AXIS_FROM))
    mine = np.log1p(max(own, _AXIS_FROM))
    low, high = float(min(logs.min(initial=0.0), mine)), float(max(logs.max(initial=0.0), mine))
    high = high if high > low else low + 1.0
    counts, edges = np.histogram(logs, _BINS, (low, high))
    start = 12.0 if ruined.any() else 0.0  # percent of the width that the ruined take
    y = ValueScale.over(1.15 * np.append(counts, ruined.sum()), _HISTOGRAM, zero=True)

    def across(log: float) -> float:
        return start + (log - low) / (high - low) * (100 - start)

    width = (100 - start) / _BINS
    body = [
        bar(across(edges[i]) + width * 0.06, width * 0.88, float(n), y, "fb",
            f"{n:,} from {written(np.expm1(edges[i]), 'percent')} to "
            f"{written(np.expm1(edges[i + 1]), 'percent')}")
        for i, n in enumerate(counts) if n
    ]  # fmt: skip
    if ruined.any():
        body.append(bar(1, 7, float(ruined.sum()), y, "fl", f"{ruined.sum():,} lost everything"))
        body.append(_tick(4.5, "ruined"))
    at = across(mine)
    body += [
        f'<line class="mk" x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="{_HISTOGRAM}"/>',
        note(at + (1 if at < 70 else -1), 12, f"this run {written(own, 'percent', signed=True)}"),
    ]
    growths = ValueScale(float(np.exp(low)), float(np.exp(high)), 1, log=True)
    for growth in growths.ticks(5):
        where = across(float(np.log(growth)))
        if start + 6 < where < 97:
            body.append(_tick(where, f"{short(growth)}\N{MULTIPLICATION SIGN}"))
    label = (
        f"Histogram of {len(returns):,} runs with random entries by growth; this run "
        f"{written(own, 'percent', signed=True)}."
    )
    return chart(body, label, _HISTOGRAM + 18, y)


def _tick(at: float, text: str) -> str:
    return f'<text class="a" x="{at:.2f}%" y="{_HISTOGRAM + 16}" text-anchor="middle">{text}</text>'


def _cost_grid(run: ReportedRun) -> ReportTable:
    own = run.envelope[0]
    returns = {
        (s["fee_bps"], s["slippage_bps"]): s["total_return"]
        for s in run.envelope
        if s["assumption"] in ("costs", "as run")
    }
    slippages = sorted({slippage for _, slippage in returns})
    most = max((abs(value) for value in returns.values()), default=1.0) or 1.0

    def cell(fee: float, slippage: float) -> Cell:
        value = returns.get((fee, slippage))
        made = figure("total_return_at_costs", value, "percent")
        framed = " me" if (fee, slippage) == (own["fee_bps"], own["slippage_bps"]) else ""
        return made._replace(css=heat(value, most) + framed)

    rows = [
        TableRow(f"{fee:g}", [cell(fee, slippage) for slippage in slippages])
        for fee in sorted({fee for fee, _ in returns})
    ]
    heads = ["fee", *(f"{slippage:g}" for slippage in slippages)]
    return ReportTable("Total return by fee and slippage", heads, rows, "cg")


def heat(value: float | None, most: float) -> str:
    """The class of a cell's colour: its sign, and in four steps its size."""
    if value is None or not np.isfinite(value) or value == 0:
        return ""
    step = min(4, 1 + int(4 * min(abs(value) / most, 0.999)))
    return f"{'p' if value > 0 else 'n'}{step}"


def _checks(run: ReportedRun) -> ReportTable:
    figures = figures_of(run)
    rows = []
    for rule in CHECKS:
        value = figures[rule.figure]
        if value is None and not run.assess and rule.figure in ASSESSED:
            continue
        chip = chip_of(rule, value)
        made = figure(rule.figure, value, kind_of_figure(rule.figure))
        if rule.figure == "fragile" and value is not None:
            made = made._replace(text="yes" if value else "no")
        words = Words(chip.text if made.text != DASH else "not known", f"chip {chip.css}")
        rows.append(TableRow(NAMES[rule.figure], [made, words]))
    return ReportTable("Checks", ["check", "figure", ""], rows, "ck")
