"""Case `cross_section`: ranking a universe each week, and its information coefficients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.pipeline.cross_section.ranked_account import ranked_account
from backtest_pipeline.pipeline.runs.identity import Window
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from bench.clock import Clock
from bench.harness import Report, Table

_FIRST_DAY = 18_000
_MOMENTUM = CrossSection(
    "momentum",
    score="close / shift(close, 30) - 1",
    count=20,
    universe="mean(close * volume, 20) > 100000",
    min_history=60,
    horizon=5,
)
_RULES = {
    "weekly, highest 20": _MOMENTUM,
    "weekly, 20 a side": replace(_MOMENTUM, side="long_short"),
    "weekly, by score": replace(_MOMENTUM, side="long_short", weights="score"),
    "weekly, inverse volatility": replace(
        _MOMENTUM, weights="inverse_volatility", volatility="std(close, 30, ddof=1) / close"
    ),
    "daily, highest 20": replace(_MOMENTUM, rebalance=1),
}


def run(*, quick: bool) -> Report:
    """Measure it."""
    n_assets, n_days = (30, 300) if quick else (149, 5 * 365)
    panel, clock = _universe(n_assets, n_days), Clock()
    rows: list[list[str | float | int]] = []
    for name, rule in _RULES.items():
        ranked_account(rule, panel, SimulationConfig(), Window(), "all")  # compiles
        begin = clock.now()
        found = ranked_account(rule, panel, SimulationConfig(), Window(), "all")
        taken = clock.now() - begin
        n_trades, n_rebalances = len(found.book.account.trades), len(found.book.targets.step)
        begin = clock.now()
        found.results()
        files = clock.now() - begin
        rows.append([name, n_rebalances, n_trades, taken.wall, taken.cpu, files.wall])
    columns = [
        "strategy",
        "rebalances",
        "trades",
        "wall s",
        "CPU s",
        "its files and summary, wall s",
    ]
    return Report(
        "Cross-sections",
        f"Scores, weights, the account and the information coefficients of {n_assets} random daily "
        f"markets of up to {n_days} days, warm; nothing is stored.",
        [Table("One run", columns, rows)],
    )


def _universe(n_assets: int, n_days: int) -> Panel:
    """Random daily bars; a third of the assets begin later, and each seventh ends early."""
    random = np.random.default_rng(7)
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("open", "high", "low", "close", "volume")
    }
    stamps, offsets = [], [0]
    for i in range(n_assets):
        first = int(random.integers(0, n_days // 3)) if i % 3 == 0 else 0
        last = n_days if i % 7 else int(random.integers(n_days // 2, n_days))
        close = 100 * np.exp(np.cumsum(random.normal(0, 0.04, last - first)))
        open_ = np.append(close[:1], close[:-1])
        columns["open"].append(open_)
        columns["high"].append(np.maximum(open_, close) * 1.01)
        columns["low"].append(np.minimum(open_, close) * 0.99)
        columns["close"].append(close)
        columns["volume"].append(random.uniform(1e3, 1e5, last - first))
        stamps.append((np.arange(first, last) + _FIRST_DAY + 1) * DAY_US - CLOSE_STAMP_US)
        offsets.append(offsets[-1] + last - first)
    return Panel(
        timeframe("1D"),
        tuple(f"A{i:03}" for i in range(n_assets)),
        np.array(offsets, np.int64),
        np.concatenate(stamps).astype(np.int64),
        {name: np.concatenate(parts) for name, parts in columns.items()},
    )
