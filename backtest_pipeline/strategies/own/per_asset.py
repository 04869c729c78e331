"""Conditions written for one asset at a time, on a data frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.strategies.strategy import Params
from backtest_pipeline.trading.conditions import Conditions

P = TypeVar("P", bound=Params)
_SIDES = tuple(field.name for field in fields(Conditions))


def per_asset(
    rule: Callable[[pd.DataFrame, P], Mapping[str, Any]],
) -> Callable[[Panel, P], Conditions]:
    """Conditions from a function that sees one asset.

    Args:
        rule: takes the features of one asset, indexed by the close of each bar (UTC), and the
            parameters. Returns boolean series or arrays by name: long_entry, long_exit,
            short_entry, short_exit; what is left out is never true.

    Returns:
        A function for the `conditions` of a `Strategy`. It calls `rule` once for each asset, so
        that it costs more than conditions on whole arrays where there are hundreds.

    Raises:
        StrategyRefused: when called, for another name, length, index or type.

    Examples:
        >>> from backtest_pipeline import build_features, load_bars
        >>> def rule(features, params):
        ...     return {"long_entry": features["close"] > features["open"]}
        >>> conditions = per_asset(rule)
    """

    def conditions(panel: Panel, params: P) -> Conditions:
        found = {name: np.zeros(len(panel), bool) for name in _SIDES}
        # A probe for look-ahead stacks hundreds of histories of one asset: so by segment, of one
        # frame that shares the panel's arrays. What a rule writes to a slice of it stays its own.
        whole = pd.DataFrame(dict(panel.columns), index=utc_index(panel.ts), copy=False)
        stops = panel.offsets[1:].tolist()
        for asset, start, stop in zip(panel.assets, panel.offsets.tolist(), stops, strict=False):
            rows = slice(start, stop)
            frame = whole.iloc[rows]
            where = f"{rule.__name__} on {asset}"
            given = rule(frame, params)
            _require_names(given, where)
            none = np.zeros(len(frame), bool)
            sides = {name: given.get(name, none) for name in _SIDES}
            for name, values in sides.items():
                if isinstance(values, pd.Series) and not values.index.equals(frame.index):
                    raise StrategyRefused(
                        f"{where}: {name} has another index than the features; "
                        "reindex it, or compute it from them"
                    )
            one = Conditions(**{name: np.asarray(values) for name, values in sides.items()})
            one.require_flags(len(frame), where)
            for name, column in found.items():
                column[rows] = getattr(one, name)
        return Conditions(**found)

    return conditions


def _require_names(given: object, where: str) -> None:
    if not isinstance(given, Mapping):
        raise StrategyRefused(
            f"{where} returns {type(given).__name__}; it must return a mapping with some of "
            f"{', '.join(_SIDES)}"
        )
    for name in given:
        if name not in _SIDES:
            raise StrategyRefused(f"{where} returns {name!r}; the names are {', '.join(_SIDES)}")
