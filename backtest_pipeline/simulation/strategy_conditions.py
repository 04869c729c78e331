"""Conditions of many strategies on many assets, as the bits that are stored and traded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.strategies.strategy import Params, Strategy, conditions_of

Rule = tuple[Strategy[Any], Params]
Failures = dict[str, dict[int, BacktestError]]
"""Why rules fail on assets, by symbol and position of the rule."""


def conditions_of_rules(panel: Panel, rules: Sequence[Rule]) -> np.ndarray:
    """Conditions of each rule at each row, uint8 `(n_rules, n_rows)`, bits as in `orders`.

    `ema_N`, `rsi_N` and `atr_N` that the panel lacks are computed from its bars, once for all.

    Raises:
        BacktestError: where a strategy fails, or returns something else than flags.
    """
    known = _with_columns(panel, rules)
    conditions = np.zeros((len(rules), len(panel)), np.uint8)
    for row, (strategy, params) in zip(conditions, rules, strict=True):
        row[:] = condition_bits(conditions_of(strategy, known, params))
    return conditions


def conditions_where_possible(panel: Panel, rules: Sequence[Rule]) -> tuple[np.ndarray, Failures]:
    """As `conditions_of_rules`, all false where a rule fails on an asset, and why it does."""
    known = _with_columns(panel, rules)
    conditions = np.zeros((len(rules), len(panel)), np.uint8)
    failures: Failures = {}
    for r, rule in enumerate(rules):
        try:
            conditions[r] = conditions_of_rules(known, [rule])[0]
        except BacktestError:
            for asset in known.assets:
                try:
                    own = conditions_of_rules(known.select([asset]), [rule])
                except BacktestError as error:
                    failures.setdefault(asset, {})[r] = error
                else:
                    conditions[r, known.rows_of(asset)] = own[0]
    return conditions, failures


def _with_columns(panel: Panel, rules: Sequence[Rule]) -> Panel:
    read = {name for strategy, params in rules for name in strategy.columns(params)}
    return with_indicators(panel, sorted(read))
