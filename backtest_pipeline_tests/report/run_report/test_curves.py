"""Trades on the price: which are drawn, and how the open one ends."""

from __future__ import annotations

import pytest

from backtest_pipeline.report.run_report.contents import Card, ReportedRun
from backtest_pipeline.report.run_report.curves import MOST_TRADES, curve_cards
from backtest_pipeline.report.run_report.trades_section import trades_section
from backtest_pipeline_tests.report.reported import reported


def _price(run: ReportedRun) -> Card:
    (card,) = (card for card in curve_cards(run) if card.title == "Price and trades")
    return card


def test_a_trade_that_is_still_open_ends_in_a_ring() -> None:
    (picture,) = _price(reported(n_trades=39)).pictures
    assert picture.count('href="#exit"') == 38
    assert picture.count('href="#open"') == 1
    assert "\u25cb still open" in picture


def test_a_run_whose_trades_are_all_closed_has_no_ring() -> None:
    run = reported(n_trades=39)
    closed = [{**trade, "is_open": False} for trade in run.trades]
    (picture,) = _price(reported(trades=closed)).pictures
    assert "#open" not in picture
    assert "still open" not in picture


@pytest.mark.parametrize("more", [0, 5])
def test_the_same_trades_are_drawn_on_the_price_and_in_order(more: int) -> None:
    n_trades = MOST_TRADES + more
    run = reported(2_000, n_trades=n_trades)
    price = _price(run)
    (in_order,) = (c for c in trades_section(run).cards if c.title == "In order")
    for picture in (*price.pictures, *in_order.pictures):
        assert f"<title>#{more + 1} " in picture
        assert f"<title>#{n_trades} " in picture
        assert f"<title>#{more} " not in picture
    assert (f"The last 400 of {n_trades} trades are drawn." in price.about) == bool(more)
    assert (f"the last 400 of {n_trades}." in in_order.about) == bool(more)
