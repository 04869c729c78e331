"""Case `rules`: the shipped strategies, and the same as rules of docs/rules.md; ranks in rules."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backtest_pipeline.market.features import build_features, with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.rules import from_toml
from backtest_pipeline.strategies.rules.ranks import with_ranks
from backtest_pipeline.strategies.strategy import Strategy, conditions_of
from bench.bars import daily_bars
from bench.harness import Report, Table, interleaved

_PAGE = Path(__file__).parents[1] / "docs" / "rules.md"
_FILTERS = {"rsi_min_long": 50.0, "rsi_max_short": 50.0, "min_atr_pct": 0.01}
_PLAIN = b"""
name = "plain"
long_entry = "close / shift(close, 90) - 1 > 0.8"
long_exit = "close / shift(close, 90) - 1 < 0.6"
"""
_ON = {"strong": True, "weak": True, "lively": True}
_PERCENTILES = {"lower": 20.0, "upper": 80.0}
# Title, strategy, its parameters, and those of its rules.
_CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("EMA crossover", "ema_crossover", {}, {}),
    ("EMA crossover with its filters", "ema_crossover", _FILTERS, _FILTERS | _ON),
    ("RSI", "rsi_mean_revert", {}, {}),
    (
        "RSI between percentiles",
        "rsi_mean_revert",
        _PERCENTILES | {"percentile_window": 100},
        _PERCENTILES | {"percentile": True},
    ),
    ("breakout", "atr_breakout", {}, {}),
    ("Bollinger", "bollinger_revert", {}, {}),
    ("MACD", "macd_crossover", {}, {}),
]


def run(*, quick: bool) -> Report:
    """Measure it; raises AssertionError where rules give other conditions."""
    table, origin = daily_bars(quick=quick)
    bars = table.to_pandas().drop_duplicates(["symbol", "ts"]).set_index("ts").sort_index()
    frames = {str(symbol): of_symbol for symbol, of_symbol in bars.groupby("symbol")}
    panel = build_features(Panel.stack(timeframe("1D"), frames))
    texts = re.findall(r"```toml\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    rules = {found.name: found for found in (from_toml(t.encode(), _PAGE.name) for t in texts)}
    repeats = 3 if quick else 101
    rows = [
        _row(panel, title, strategy_of(name), rules[f"my_{name}"], params, repeats)
        for title, name, *params in _CASES
    ]
    columns = ["strategy", "Python ms", "rules ms", "rules / Python"]
    return Report(
        "Rules",
        f"Conditions of {len(frames)} symbols ({origin}, {len(panel):,} daily bars) by the shipped "
        "strategy and by its rules in docs/rules.md, equal to the bit. Columns that are read lie "
        f"ready. The fastest of {repeats} rounds that take turns: these are too short for medians.",
        [Table("Conditions", columns, rows), _ranks(panel, rules["momentum"], repeats)],
    )


def _ranks(panel: Panel, ranked: Strategy[Any], repeats: int) -> Table:
    """The same rules on ranks and on what they rank."""
    plain = from_toml(_PLAIN, "plain.toml")
    params = ranked.parse({})
    names = ranked.columns(params)
    work = {
        "plain": lambda: conditions_of(plain, panel, plain.parse({})),
        "ranked": lambda: conditions_of(ranked, with_ranks(panel, names), params),
    }
    taken = interleaved(work, repeats)
    without, with_them = (min(t.wall for t in taken[name]) * 1e3 for name in work)
    columns = ["rule", "of itself ms", "ranked among all ms", "more ms"]
    row = ["close / shift(close, 90) - 1", without, with_them, with_them - without]
    return Table("Ranks, computed each time", columns, [row])


def _row(
    panel: Panel,
    title: str,
    shipped: Strategy[Any],
    rules: Strategy[Any],
    params: list[dict[str, Any]],
    repeats: int,
) -> list[str | float | int]:
    one, other = shipped.parse(params[0]), rules.parse(params[1])
    known = with_indicators(panel, shipped.columns(one))
    work = {
        "python": partial(conditions_of, shipped, known, one),
        "rules": partial(conditions_of, rules, known, other),
    }
    expected, found = (vars(compute()) for compute in work.values())
    assert all(np.array_equal(expected[name], found[name]) for name in expected), title
    taken = interleaved(work, repeats)
    python, ours = (min(t.wall for t in taken[name]) * 1e3 for name in ("python", "rules"))
    return [title, python, ours, ours / python]
