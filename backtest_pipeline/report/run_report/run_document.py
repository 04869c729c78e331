"""The report of a run as one HTML document that loads nothing and runs no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from markupsafe import Markup

from backtest_pipeline.report.number_formats import kind_of, written
from backtest_pipeline.report.rendering import render, template_text
from backtest_pipeline.report.run_report.contents import (
    Card,
    Figure,
    ReportedRun,
    ReportTable,
    figure,
)
from backtest_pipeline.report.run_report.curves import curve_cards
from backtest_pipeline.report.run_report.folds_section import folds_section
from backtest_pipeline.report.run_report.holdings_section import holdings_section
from backtest_pipeline.report.run_report.metrics_section import benchmark_metrics, metrics_section
from backtest_pipeline.report.run_report.table_markup import (
    figure_markup,
    markup,
    row_markup,
    table_markup,
)
from backtest_pipeline.report.run_report.time_section import time_section
from backtest_pipeline.report.run_report.trades_section import (
    open_trades_note,
    trade_rows,
    trades_columns,
    trades_section,
)
from backtest_pipeline.report.run_report.trust_section import trust_section
from backtest_pipeline.report.run_report.verdict import (
    figures_of,
    reasons_of,
    trials_counted,
    verdict_of,
)

MOST_BYTES = 1_500_000
"""Length of a report as a file; what is beyond is said, and stands in a CSV file beside it."""
PAGE_TRADES = 100
"""Trades in the table of a page of the service."""


class Document(NamedTuple):
    """A report as HTML, its content security policy, and how many trades its table has."""

    html: str
    policy: str
    n_trades: int


class ReportTile(NamedTuple):
    """A key figure: what it is, its value, and what stands below it."""

    title: str
    value: Markup
    below: str


def run_document(
    run: ReportedRun,
    *,
    most_trades: int | None = None,
    most_bytes: int | None = None,
    others: str = "",
    zoom: str = "",
) -> Document:
    """The report, the same bytes for the same run.

    Args:
        run: all that is shown.
        most_trades: rows of the table of all trades; None for no such limit.
        most_bytes: length of the document, which the same table is cut to; None for no limit.
        others: where all trades are, as a relative address, said where the table is cut.
        zoom: where the curves can be zoomed into, as a relative address; no link without.
    """
    rows = map(row_markup, trade_rows(run.trades, most_trades))
    if most_bytes is None:
        shown = list(rows)
    else:
        shown = list(_fitting(rows, most_bytes - len(_html(run, [], others, zoom).encode())))
    return Document(_html(run, shown, others, zoom), style_policy(), len(shown))


def _fitting(rows: Iterable[Markup], room: int) -> Iterator[Markup]:
    """The first rows, as many as fit into so many bytes."""
    for row in rows:
        room -= len(row.encode())
        if room < 0:
            return
        yield row


def style_policy() -> str:
    """The content security policy of a document: its own style and pictures alone."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"


@cache
def _style() -> str:
    return template_text("run_report.css")


def _html(run: ReportedRun, rows: Sequence[Markup], others: str, zoom: str) -> str:
    sections = [
        folds_section(run),
        holdings_section(run),
        trust_section(run),
        time_section(run),
        trades_section(run),
        metrics_section(run),
    ]
    cut = len(rows) < len(run.trades)
    return render(
        "run_report.html.j2",
        run=run,
        policy=style_policy(),
        style=markup(_style()),
        verdict=verdict_of(figures_of(run)),
        reasons=list(reasons_of(run)),
        tiles=list(report_tiles(run)),
        curves=[_card(card) for card in curve_cards(run)],
        sections=[
            (section.anchor, section.title, [_card(card) for card in section.cards])
            for section in sections
            if section.cards
        ],
        trades=_all_trades(run, rows) if run.trades else "",
        cut=f"{len(rows):,} of {len(run.trades):,} trades" if cut else "",
        others=others,
        zoom=zoom,
        settings=list(_flat("", run.settings)),
        provenance=list(_flat("", run.provenance)),
    )


def _all_trades(run: ReportedRun, rows: Sequence[Markup]) -> Markup:
    heads = ["#", *trades_columns(run.trades)]
    return table_markup(ReportTable(f"All trades of {run.symbol}", heads, [], "tt"), rows)


def _card(card: Card) -> dict[str, Any]:
    """A card as its template reads it; pictures are SVG of our own, whose text is escaped."""
    return {
        **card._asdict(),
        "pictures": [markup(picture) for picture in card.pictures],
        "table": "" if card.table is None else table_markup(card.table),
    }


def report_tiles(run: ReportedRun) -> Iterator[ReportTile]:
    """The six key figures, each with its benchmark's, its interval or its count below it."""
    held = benchmark_metrics(run.series, run.risk_free) if run.series else {}

    def beside(name: str) -> str:
        value = held.get(name)
        if value is None:
            return run.undefined.get(name, "") if run.metrics.get(name) is None else ""
        return f"{run.benchmark_name} {written(value, kind_of(name), signed=True)}"

    yield _tile("Total return", run.figure("total_return", signed=True), beside("total_return"))
    yield _tile("A year", run.figure("cagr", signed=True), beside("cagr"))
    yield _tile("Sharpe ratio", run.figure("sharpe"), _interval(run))
    yield _tile("Largest drawdown", run.figure("max_drawdown"), beside("max_drawdown"))
    yield _tile("Deflated Sharpe", run.figure("dsr"), _counted(run))
    if not run.is_portfolio:
        yield _tile("Trades", run.figure("trade_count"), open_trades_note(run))
    else:
        name = "diversification_benefit"
        gained = figure(name, run.metrics.get(name), "ratio", signed=True)
        yield _tile("Diversification", gained, "Sharpe ratio, above the mean of its members")


def _tile(title: str, made: Figure, below: str) -> ReportTile:
    return ReportTile(title, figure_markup(made._replace(css=""), "b"), below)


def _interval(run: ReportedRun) -> str:
    if run.metrics.get("sharpe") is None:
        return run.undefined.get("sharpe", "undefined")
    if run.intervals is None:
        return "interval: not assessed"
    low, high = run.intervals["sharpe"]
    return f"90 %: {written(low, 'ratio')} to {written(high, 'ratio')}"


def _counted(run: ReportedRun) -> str:
    board = run.board
    if board is None:
        return trials_counted(run)
    of_board = f"leaderboard {written(board.dsr, 'percent')}, {board.n_trials:,} trials"
    return f"{trials_counted(run)}; {of_board}"


def _flat(above: str, facts: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Facts within facts under names with dots."""
    for name, fact in facts.items():
        if isinstance(fact, Mapping):
            yield from _flat(f"{above}{name}.", fact)
        elif fact is not None:
            yield f"{above}{name}", str(fact)
