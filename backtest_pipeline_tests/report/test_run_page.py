"""A run's page: whole, escaped, and silent about what is not known."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from backtest_pipeline.report.run_page import RunFacts, run_page

INDEX = pd.date_range("2024-01-01", periods=30, tz="UTC")
HOSTILE = '<script>alert("x")</script>'


def facts(**changed: Any) -> RunFacts:
    rising = pd.Series(range(100, 130), INDEX, float)
    usual: dict[str, Any] = {
        "title": "ema_9_21 on AAA 1D",
        "subject": "30 bars",
        "warnings": (),
        "metrics": {"total_return": 0.29, "sharpe": None, "trade_count": 2.0},
        "undefined": {"sharpe": "fewer than two daily returns"},
        "equity": rising,
        "benchmark": rising,
        "drawdown": rising * 0,
        "trades": (),
        "n_trades": 0,
        "settings": {"costs": {"fee_bps": 10}},
        "provenance": {"run_id": "1234"},
    }
    return RunFacts(**{**usual, **changed})


def test_the_page_shows_what_the_run_came_to_and_why_a_metric_is_not_known() -> None:
    page = run_page(facts())
    assert "29.0%" in page
    assert "fewer than two daily returns" in page
    assert "costs.fee_bps" in page
    assert page.count("<svg") == 2
    assert "No trades." in page
    assert "NaN" not in page
    assert "None" not in page


def test_the_page_shows_the_first_trades_and_says_how_many_there_are() -> None:
    trade = {
        "entry_ts": datetime(2024, 1, 2, tzinfo=UTC),
        "exit_ts": datetime(2024, 1, 5, 12, 30, tzinfo=UTC),
        "direction": "long",
        "entry_price": 100.0,
        "pnl": 12.5,
        "pnl_pct": 0.0125,
        "bars_held": 3,
        "exit_reason": "signal",
    }
    page = run_page(facts(trades=[trade], n_trades=2))
    assert "2024-01-05 12:30" in page
    assert "1.25%" in page
    assert "The first 1 of 2 trades." in page


def test_nothing_on_the_page_is_taken_for_markup() -> None:
    page = run_page(
        facts(
            title=HOSTILE,
            subject=HOSTILE,
            warnings=[HOSTILE],
            undefined={"sharpe": HOSTILE},
            trades=[{"direction": HOSTILE}],
            settings={HOSTILE: HOSTILE},
            provenance={HOSTILE: {HOSTILE: HOSTILE}},
        )
    )
    assert "<script" not in page
    assert page.count("&lt;script") >= 8


def test_a_run_without_a_benchmark_has_its_own_curve() -> None:
    page = run_page(facts(benchmark=pd.Series(float("nan"), INDEX)))
    assert "buy and hold</text>" not in page
    assert page.count("<svg") == 2


def test_the_page_is_the_same_to_the_byte_and_loads_nothing() -> None:
    page = run_page(facts())
    assert page == run_page(facts())
    assert page.startswith("<!DOCTYPE html>\n")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import""", page)
