"""What docs/vectorbt.md shows runs, and what it warns of is so."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtest_pipeline import build_features, explore, load_bars, run_backtest
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.documents import blocks
from backtest_pipeline_tests.own_strategies import own_strategies, write

PAGE = "docs/vectorbt.md"


def test_the_portfolio_of_a_run_is_as_it_is_shown(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", database.conninfo)
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(tmp_path))
    shown, _ = blocks(PAGE, "python")
    exec(compile(shown, PAGE, "exec"), {})  # noqa: S102 - our own document


def test_the_strategy_with_an_indicator_of_vectorbt_trades_and_explores(tmp_path: Path) -> None:
    _, strategy = blocks(PAGE, "python")
    shown = 'grid={"window": (10, 20, 40), "width": (1.5, 2.0)}'
    assert shown in strategy
    # A probe for look-ahead calls the indicator 625 times for each end of the grid.
    fewer = strategy.replace(shown, 'grid={"window": (10, 20), "width": (2.0,)}')
    write(tmp_path, "vbt_bands.py", fewer)
    bars = load_bars(asset="S-ALPHA").iloc[:280]
    with own_strategies(tmp_path):
        ours = run_backtest(bars, "vbt_bands", {"window": 20})
        table = explore(bars, "vbt_bands", {"window": [10, 20], "width": [2.0]}).table
        theirs = run_backtest(bars, "vbt_bands", {"window": 20}, engine="vectorbt")
    assert len(ours.trades) > 2
    assert table.loc[(20, 2.0), "total_return"] == ours.metrics["total_return"]
    np.testing.assert_allclose(theirs.equity, ours.equity, rtol=1e-9)


def test_their_rsi_and_atr_are_not_wilder_s() -> None:
    vbt: Any = import_module("vectorbt")
    features = build_features(load_bars(asset="S-ALPHA").iloc[:400])
    high, low, close = (features[name] for name in ("high", "low", "close"))
    for ewm in (False, True):
        rsi = vbt.RSI.run(close, 14, ewm=ewm).rsi.iloc[-200:]
        atr = vbt.ATR.run(high, low, close, 14, ewm=ewm).atr.iloc[-200:]
        assert np.abs(rsi - features["rsi_14"].iloc[-200:]).max() > 5
        assert np.abs(atr / features["atr_14"].iloc[-200:] - 1).max() > 0.05
