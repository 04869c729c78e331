"""The report of a run as a document: whole, escaped, same to the byte, cut where it says."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from backtest_pipeline.report.number_formats import kind_of, written
from backtest_pipeline.report.run_report.contents import ReportedRun
from backtest_pipeline.report.run_report.run_document import (
    MOST_BYTES,
    PAGE_TRADES,
    run_document,
)
from backtest_pipeline_tests.report.reported import HOSTILE, reported, walk

SECTIONS = ("equity", "trust", "time", "trades", "metrics", "provenance")


class _Figures(HTMLParser):
    """Figures of a document: name, stored value and text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self._open: tuple[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if "data-metric" in given:
            self._open = (given["data-metric"] or "", given["data-value"] or "")

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.found.append((*self._open, data))
            self._open = None


def figures(html: str) -> list[tuple[str, str, str]]:
    parser = _Figures()
    parser.feed(html)
    return parser.found


def html_of(run: ReportedRun) -> str:
    return run_document(run, most_trades=PAGE_TRADES).html


@pytest.mark.parametrize("n_trades", [0, 1, 39])
def test_the_report_has_every_section(n_trades: int) -> None:
    html = html_of(reported(n_trades=n_trades))
    for section in SECTIONS:
        assert f'id="{section}"' in html
        assert f'href="#{section}"' in html
    assert "nan" not in html.lower().replace("provenance", "")
    assert ">None<" not in html


def test_every_metric_has_its_stored_value_and_the_text_of_the_one_formatter() -> None:
    run = reported()
    shown = {(name, value, text) for name, value, text in figures(html_of(run))}
    for name, value in run.metrics.items():
        text = written(value, kind_of(name))
        assert (name, "" if value is None else repr(value), text) in shown, name


def test_intervals_are_shown_as_they_are_stored() -> None:
    shown = figures(html_of(reported()))
    assert ("sharpe_low", "0.1", "0.10") in shown
    assert ("sharpe_high", "1.4", "1.40") in shown


def test_the_benchmark_has_the_metrics_of_the_same_code() -> None:
    run = reported()
    assert run.series is not None
    held = run.series.benchmark
    as_run = reported(series=replace(run.series, equity=held))
    shown = {name: value for name, value, _ in figures(html_of(run))}
    for name in ("sharpe", "sortino", "max_drawdown", "value_at_risk_95", "cagr"):
        assert shown[f"benchmark_{name}"] == repr(as_run.metrics[name])


def test_nothing_in_the_report_is_taken_for_markup() -> None:
    trade = {**reported(n_trades=1).trades[0], "exit_reason": HOSTILE, "direction": HOSTILE}
    html = html_of(
        reported(
            name=HOSTILE,
            symbol=HOSTILE,
            timeframe=HOSTILE,
            subject=HOSTILE,
            benchmark_name=HOSTILE,
            warnings=[HOSTILE],
            missing=[HOSTILE],
            undefined={"dsr": HOSTILE},
            assess=HOSTILE,
            assessed=False,
            trades=[trade],
            settings={HOSTILE: HOSTILE},
            provenance={HOSTILE: {HOSTILE: HOSTILE}},
        )
    )
    assert "<script" not in html
    assert html.count("&lt;script") >= 10


def test_the_report_loads_nothing_and_is_the_same_to_the_byte() -> None:
    run = reported()
    document = run_document(run)
    assert document == run_document(run)
    assert document.html.lstrip().startswith("<!DOCTYPE html>")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)|url\(|@import""", document.html)
    assert " style=" not in document.html
    assert document.policy in document.html.replace("&#39;", "'")


def test_a_page_has_the_first_trades_and_says_where_the_others_are() -> None:
    document = run_document(reported(n_trades=150), most_trades=PAGE_TRADES, others="trades")
    assert document.n_trades == 100
    assert '100 of 150 trades are shown; <a href="trades">trades</a> has all.' in document.html


def test_a_file_is_cut_at_its_bytes() -> None:
    run = reported(n=12_000, n_trades=10_000)
    document = run_document(run, most_bytes=MOST_BYTES, others="run.trades.csv")
    length = len(document.html.encode())
    assert 0.95 * MOST_BYTES < length <= MOST_BYTES
    assert 0 < document.n_trades < 10_000
    assert f"{document.n_trades:,} of 10,000 trades are shown" in document.html
    assert "run.trades.csv" in document.html


def test_a_run_that_is_not_assessed_names_the_command() -> None:
    html = html_of(reported(assessed=False))
    assert "<code>backtest-pipeline robustness --asset AAA</code>" in html
    assert "Not assessed yet" in html
    assert "interval: not assessed" in html


def test_open_trades_are_said_to_stand_outside() -> None:
    html = html_of(reported())
    assert "1 open, not counted there" in html
    assert "Open trades are outside win rate and profit factor" in html


@pytest.mark.parametrize(
    "changed",
    [
        {"series": None},
        {"closes": None},
        {"series": None, "closes": None, "assessed": False},
        {"metrics": {}},
    ],
    ids=["series", "price", "all", "metrics"],
)
def test_what_is_missing_is_said_and_the_rest_is_shown(changed: dict[str, Any]) -> None:
    html = html_of(reported(**changed, missing=["It is not shown: gone."]))
    assert "It is not shown: gone." in html
    assert 'id="trades"' in html
    assert 'id="provenance"' in html


def test_a_run_without_a_benchmark_has_its_own_curve() -> None:
    series = walk(300, benchmark=np.full(300, np.nan))
    html = html_of(reported(300, series=series, closes=None, trades=[]))
    assert "buy and hold</span>" not in html
    assert "benchmark_sharpe" not in html


def test_a_liquidated_run_is_drawn_on_a_linear_scale() -> None:
    series = walk(900)
    equity = series.equity.copy()
    equity[300:] = 0.0
    drawdown = np.where(equity == 0, -1.0, series.drawdown)
    html = html_of(
        reported(series=replace(series, equity=equity, drawdown=drawdown), liquidated=True)
    )
    assert "linear scale, as equity reaches zero" in html
    assert "The account was lost." in html


@pytest.mark.parametrize("n", [2, 3, 20, 95, 400])
def test_short_runs_are_drawn(n: int) -> None:
    html = html_of(reported(n, n_trades=1))
    assert html.count("<svg") > 4


def test_minutes_are_drawn_in_bounded_bytes() -> None:
    run = reported(50_000, n_trades=10, step_us=60_000_000)
    assert len(run_document(run).html) < 400_000
