"""What a portfolio or book held: every weight, share and correlation as it is stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backtest_pipeline.report.run_report.contents import Holdings, ReportedRun
from backtest_pipeline.report.run_report.holdings_section import holdings_section
from backtest_pipeline.report.run_report.run_document import run_document
from backtest_pipeline_tests.report.reported import HOSTILE, reported, trades_on, walk

SERIES = walk(400)


def portfolio(n: int = 4, **changed: object) -> ReportedRun:
    """A portfolio of members of which every second one is like the first."""
    kind = np.arange(n) % 2
    matrix = np.where(kind[:, None] == kind, 0.9, 0.1) + 0.1 * np.eye(n)
    held = Holdings(
        [f"M{i}" for i in range(n)],
        SERIES.ts[::100],
        int(SERIES.ts[-1]),
        np.full((4, n), 1 / n),
        np.full(n, 1 / n),
        matrix,
    )
    metrics = {
        name: value
        for name, value in reported().metrics.items()
        if name in ("total_return", "cagr", "sharpe", "max_drawdown", "dsr", "psr", "n_trials")
    }
    metrics |= {"mean_member_sharpe": 0.5, "diversification_benefit": 0.25, "effective_bets": None}
    series = replace(SERIES, exposure=np.full(400, np.nan))
    usual: dict[str, object] = {
        "series": series,
        "closes": None,
        "trades": [],
        "blocked": [],
        "n_blocked": 0,
        "assessed": False,
        "assess": "",
        "metrics": metrics,
        "undefined": {"effective_bets": "fewer than two returns, or no variation"},
        "holdings": held,
        "is_portfolio": True,
    }
    return reported(400, **{**usual, **changed})  # pyright: ignore[reportArgumentType]


def test_a_portfolio_shows_weights_risk_gain_and_correlations() -> None:
    section = holdings_section(portfolio())
    assert [card.title for card in section.cards] == [
        "Weights over time",
        "Risk contributions",
        "What diversification gained",
        "Correlations",
    ]
    page = run_document(portfolio()).html
    assert page.count('data-metric="weight" data-value="0.25">25.0%<') == 4
    assert page.count('data-metric="risk_share" data-value="0.25">25.0%<') == 4
    gained = '<b data-metric="diversification_benefit" data-value="0.25">+0.25</b>'
    assert gained in page
    assert "fewer than two returns" in page
    assert "Exposure" not in page
    assert "No trade was made" not in page
    assert "the command stands with the verdict" not in page


def test_alike_members_stand_together() -> None:
    table = holdings_section(portfolio()).cards[-1].table
    assert table is not None
    names = list(table.heads[1:])
    assert sorted(names[:2]) in (["M0", "M2"], ["M1", "M3"])
    for i, row in enumerate(table.rows):
        assert row.head == names[i]
        for j, cell in enumerate(row.cells):
            alike = (int(names[i][1:]) - int(names[j][1:])) % 2 == 0
            assert cell.text == ("1.00" if i == j else "0.90" if alike else "0.10")


def test_of_many_members_the_largest_are_shown_and_the_rest_is_counted() -> None:
    cards = holdings_section(portfolio(100)).cards
    assert "The 24 largest of 100." in cards[0].about
    assert "The 20 largest of 100." in cards[-1].about
    assert len("".join(cards[0].pictures)) < 50_000


def test_a_cross_section_shows_signed_weights_alone() -> None:
    weights = np.array([[0.5, -0.5], [0.0, 0.0]])
    held = Holdings(["A", HOSTILE], SERIES.ts[:2], int(SERIES.ts[9]), weights)
    cards = holdings_section(reported(holdings=held)).cards
    assert [card.title for card in cards] == ["Weights over time"]
    (picture,) = cards[0].pictures
    assert 'class="an"' in picture
    assert HOSTILE not in picture
    assert 'data-metric="mean_weight" data-value="-0.25"' in picture


def test_a_book_of_several_assets_shows_its_positions() -> None:
    trades = trades_on(SERIES, 6)
    for i, trade in enumerate(trades):
        trade["symbol"] = "AAA" if i < 4 else HOSTILE
    (card,) = holdings_section(reported(trades=trades)).cards
    (picture,) = card.pictures
    assert picture.count("<rect") == 6
    assert HOSTILE not in picture
    assert 'data-metric="asset_trades" data-value="4.0"' in picture
    one_asset = [{**trade, "symbol": "AAA"} for trade in trades]
    assert holdings_section(reported(trades=one_asset)).cards == []
    assert holdings_section(reported()).cards == []
