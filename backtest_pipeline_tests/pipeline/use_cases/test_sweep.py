"""Explorations: each cell is a backtest, and what cannot be explored is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest_pipeline as bp
from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES

SMALL = {"fast": [5, 9], "slow": [21, 50]}


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return bp.load_bars(asset="S-ALPHA").iloc[:700]


@pytest.mark.parametrize(
    ("name", "params", "cell"),
    [
        ("ema_crossover", SMALL, (9, 21)),
        ("rsi", {"period": [7, 10], "lower": [30, 35], "upper": [60, 70]}, (10, 35, 60)),
        ("atr", {"lookback": [20, 30], "trail_mult": [2, 3.5], "atr_period": 10}, (30, 3.5, 10)),
        ("bollinger", {"period": [15, 20], "width": [1.5, 2]}, (20, 1.5)),
        ("macd", {"fast": [8, 12], "slow": 26, "signal": [7, 9]}, (8, 26, 9)),
    ],
)
@pytest.mark.parametrize(
    "assumed",
    [
        {"direction": "both"},
        {
            "direction": "long",
            "costs": bp.CostModel(12.0, 4.0, funding_bps_day=2.0),
            "sizing": bp.VolatilityScaled(0.3, 20),
            "stops": bp.StopRules(trailing_atr=3.0, max_bars=60),
            "max_leverage": 1.5,
        },
    ],
    ids=["usual", "unusual"],
)
def test_a_cell_is_the_backtest_of_its_parameters_bit_for_bit(
    bars: pd.DataFrame,
    name: str,
    params: dict[str, Any],
    cell: tuple[float, ...],
    assumed: dict[str, Any],
) -> None:
    found = bp.explore(bars, name, params, **assumed)
    single = bp.run_backtest(bars, name, dict(zip(params, cell, strict=True)), **assumed)
    assert single.metrics["trade_count"]
    row = found.table.loc[cell]
    for metric in METRIC_NAMES:
        value = single.metrics[metric]
        assert np.isnan(row[metric]) if value is None else row[metric] == value, metric


def test_the_best_is_the_greatest_of_the_metric_and_all_are_ranked(bars: pd.DataFrame) -> None:
    found = bp.explore(bars, "ema", SMALL | {"slow": [7, 21, 50]}, metric="calmar")
    calmar = found.table["calmar"]
    assert tuple(found.best.values()) == calmar.idxmax()
    assert found.ranked["calmar"].is_monotonic_decreasing
    assert (len(found.table), found.left_out, found.swept) == (5, 1, ("fast", "slow"))
    assert "5 combinations were tried" in found.warning
    assert "not evidence" in found.warning


def test_the_window_is_traded_and_the_bars_before_it_are_known(bars: pd.DataFrame) -> None:
    found = bp.explore(bars, "ema", SMALL, start=date(2020, 6, 1), end=date(2021, 6, 1))
    assert found.subject.n_bars == 365
    assert (found.subject.first, found.subject.last) == (date(2020, 6, 1), date(2021, 5, 31))
    cold = bp.explore(bars.loc["2020-06-01":"2021-05-31"], "ema", SMALL)
    assert cold.subject.n_bars == 365
    assert not cold.table["total_return"].equals(found.table["total_return"])


def test_the_subject_tells_what_is_not_as_usual(bars: pd.DataFrame) -> None:
    usual = bp.explore(bars, "ema", SMALL, asset="BTC").subject
    assert str(usual) == (
        "BTC 1D, 700 bars from 2020-01-01 to 2021-11-30 (UTC); direction both, fee 10 and "
        "slippage 5 basis points a side"
    )
    rates = pd.Series(1e-4, bars.index)
    unusual = bp.explore(
        bars,
        "ema",
        SMALL,
        asset="BTC",
        funding=FundingRates.of({"BTC": rates}),
        sizing=bp.ByExpression("0.9"),
        stops=bp.StopRules(stop_loss=0.1),
        max_leverage=2.0,
    )
    assert unusual.subject.settings.endswith(
        "a side, funding at the given rates, sizing (fraction 0.9), "
        "stops (stop_loss 0.1, atr_period 14), max_leverage 2.0"
    )
    assert unusual.table["funding_paid"].abs().to_numpy().min() > 0
    with pytest.raises(InvalidInput, match="ETH: no funding rates; there are rates for BTC"):
        bp.explore(bars, "ema", SMALL, asset="ETH", funding=FundingRates.of({"BTC": rates}))


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("emma", {}, UnknownName, "unknown strategy 'emma'; did you mean ema"),
        ("ema", {"metric": "sharp"}, UnknownName, "unknown metric 'sharp'; did you mean sharpe"),
        ("ema", {"direction": "shrt"}, UnknownName, "did you mean short"),
        ("ema", {"params": {"fsat": [1]}}, UnknownName, "did you mean fast"),
        ("ema", {"params": {"fast": 5, "slow": 9}}, InvalidInput, "one combination is a backtest"),
        ("ema", {"max_combinations": 9}, InvalidInput, "100 combinations, and 9 are the limit"),
        (
            "ema",
            {"start": date(2031, 1, 1)},
            InvalidInput,
            "BTC|1D has 0 bars from 2031-01-01 to the end",
        ),
        (
            "ema",
            {"start": date(2021, 1, 1), "end": date(2021, 1, 1)},
            InvalidInput,
            "is not after its start",
        ),
        (
            "ema",
            {"end": date(2020, 1, 15)},
            InvalidInput,
            "sharpe is undefined for all 90 combinations .*another metric",
        ),
    ],
)
def test_what_cannot_be_explored_is_explained(
    bars: pd.DataFrame, name: str, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bp.explore(bars, name, asset="BTC", **changes)


def test_a_page_that_cannot_be_written_is_named(bars: pd.DataFrame, tmp_path: Path) -> None:
    found = bp.explore(bars, "ema", SMALL)
    with pytest.raises(InvalidInput, match=r"cannot write .*nowhere/page\.html: No such"):
        found.write_html(tmp_path / "nowhere" / "page.html")
