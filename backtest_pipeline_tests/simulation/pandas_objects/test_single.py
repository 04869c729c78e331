"""The metric dictionary of any equity curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline import compute_metrics, simulate, simulate_book
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.metrics.metrics import AGAINST_BENCHMARK, METRIC_NAMES
from backtest_pipeline.simulation.pandas_objects.single import SimulationResult
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import bars_of

DAYS = pd.date_range("2024-01-01", periods=9, tz="UTC")
RETURNS = np.array([0.0, 0.01, 0.10, -0.04, 0.02, 0.03, 0.02, 0.01, -0.10])
EQUITY = pd.Series(np.cumprod(1 + RETURNS), DAYS)


def a_run() -> SimulationResult:
    rng = np.random.default_rng(5)
    bars = bars_of(100 * np.exp(np.cumsum(rng.normal(0, 0.02, 300))))
    entries, exits = (pd.Series(rng.random(300) < 0.1, bars.index) for _ in range(2))
    return simulate(bars, entries, exits, stops=StopRules(stop_loss=0.03))


def test_published_ratios_come_out() -> None:
    found = compute_metrics(EQUITY)
    assert found["sharpe"] == pytest.approx(2.0746675114, abs=1e-10)
    assert found["sortino"] == pytest.approx(3.1357573468, abs=1e-10)
    assert found["annual_volatility"] == pytest.approx(1.0995737811, abs=1e-10)
    assert found["max_drawdown"] == pytest.approx(-0.1)


def test_empyrical_agrees() -> None:
    import empyrical

    equity = a_run().equity
    returns = equity.pct_change().dropna()
    found = compute_metrics(equity)
    theirs = {
        "sharpe": empyrical.sharpe_ratio(returns, annualization=365),
        "sortino": empyrical.sortino_ratio(returns, annualization=365),
        "annual_volatility": empyrical.annual_volatility(returns, annualization=365),
        "max_drawdown": empyrical.max_drawdown(returns),
        "cagr": empyrical.cagr(returns, annualization=365),
        "calmar": empyrical.calmar_ratio(returns, annualization=365),
    }
    for name, value in theirs.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


def test_a_run_has_the_metrics_of_its_own_equity_benchmark_and_trades() -> None:
    run = a_run()
    found = compute_metrics(run.equity, run.benchmark, run.trades)
    assert list(found) == list(METRIC_NAMES)
    for name, value in run.metrics.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_what_is_not_given_is_undefined() -> None:
    found = compute_metrics(EQUITY)
    for name in (*AGAINST_BENCHMARK, "trade_count", "win_rate", "turnover", "exposure"):
        assert found[name] is None


def test_trades_that_overlap_expose_no_bar_twice() -> None:
    rng = np.random.default_rng(6)
    bars = {a: bars_of(100 * np.exp(np.cumsum(rng.normal(0, 0.02, 200)))) for a in "AB"}
    signals = {
        a: pd.DataFrame(rng.random((200, 2)) < 0.1, b.index, columns=["entries", "exits"])
        for a, b in bars.items()
    }
    book = simulate_book(bars, signals)
    found = compute_metrics(book.equity, trades=book.trades)
    assert found["exposure"] == book.metrics["exposure"]


def test_the_risk_free_return_comes_off() -> None:
    free, costly = (compute_metrics(EQUITY, risk_free=rate)["sharpe"] for rate in (0.0, 0.001))
    assert free is not None
    assert costly is not None
    assert costly < free


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"equity": [1.0, 2.0]}, "must be a pandas Series of equity, not list"),
        ({"equity": EQUITY.to_frame()}, "not DataFrame"),
        ({"equity": EQUITY.tz_localize(None)}, "have no time zone"),
        ({"equity": EQUITY[::-1]}, "strictly increasing"),
        ({"equity": EQUITY[:0]}, "at least one"),
        ({"equity": EQUITY.replace(EQUITY.iloc[3], np.inf)}, "must be finite"),
        ({"equity": EQUITY * [1, 1, 0, 1, 1, 1, 1, 1, 1]}, "falls to 0 and rises again"),
        ({"equity": EQUITY, "benchmark": "asset"}, "benchmark must be a pandas Series"),
        ({"equity": EQUITY, "risk_free": np.nan}, "risk_free must be a finite number"),
        ({"equity": EQUITY, "trades": []}, "trades must be a pandas DataFrame, not list"),
        ({"equity": EQUITY, "trades": pd.DataFrame({"pnl": [1]})}, "no column 'entry_ts'"),
    ],
)
def test_what_is_no_equity_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compute_metrics(**given)


@pytest.mark.parametrize(("column", "value"), [("pnl", "much"), ("pnl", np.nan)])
def test_trades_that_hold_no_numbers_are_refused(column: str, value: object) -> None:
    run = a_run()
    trades = run.trades.astype({column: object})
    trades.loc[0, column] = value
    with pytest.raises(InvalidInput, match=f"trades: column '{column}'"):
        compute_metrics(run.equity, trades=trades)


def test_flags_as_numbers_mean_the_same() -> None:
    run = a_run()
    numbers = run.trades.astype({"is_open": int})
    assert compute_metrics(run.equity, trades=numbers) == compute_metrics(
        run.equity, trades=run.trades
    )
