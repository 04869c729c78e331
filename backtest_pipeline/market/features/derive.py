"""Features that a panel lacks, computed from its bars."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np

from backtest_pipeline.market.cross_section import is_rank
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features.build import build_features
from backtest_pipeline.market.features.catalogue import FEATURES
from backtest_pipeline.market.panel import OHLCV, Panel

_CATALOGUED = frozenset(feature.name for feature in FEATURES)
_PERIODIC = re.compile(r"(ema|rsi|atr)_([1-9]\d{0,5})")


def is_derived(name: str) -> bool:
    """Whether `with_indicators` computes a column of this name from bars alone."""
    return _PERIODIC.fullmatch(name) is not None


def is_given_by_bars(name: str) -> bool:
    """Whether a column is one of bars, or can be computed from them.

    Examples:
        >>> is_given_by_bars("rsi_5"), is_given_by_bars("rsi5")
        (True, False)
    """
    return name in OHLCV or name in _CATALOGUED or is_derived(name)


def with_indicators(panel: Panel, names: Sequence[str]) -> Panel:
    """The panel with the named columns added, computed from its bars where missing.

    Args:
        panel: open, high, low, close and volume from each asset's first bar on: EMAs and Wilder's
            averages depend on all earlier bars, so a later start gives other values.
        names: columns of the panel; `ema_N`, `rsi_N`, `atr_N` for any period N; or columns of
            `FEATURES`, which are computed all at once.

    Raises:
        InvalidInput: for any other name.
    """
    missing = [name for name in names if name not in panel.columns]
    if not missing:
        return panel
    catalogued = [name for name in missing if name in _CATALOGUED]
    computed: dict[str, np.ndarray] = {}
    if catalogued and set(OHLCV) <= panel.columns.keys():
        features = build_features(panel)
        computed = {name: features[name] for name in catalogued}
    for name in missing:
        if name not in computed:
            computed[name] = _periodic(panel, name)
    return panel.with_columns(computed)


def _periodic(panel: Panel, name: str) -> np.ndarray:
    """An EMA, RSI or ATR of any period."""
    match = _PERIODIC.fullmatch(name)
    if is_rank(name):
        raise InvalidInput(
            f"{name} ranks an asset among all assets, and the bars of one do not give it; run the "
            "strategy on a store, or give the features a column of this name"
        )
    if match is None:
        raise InvalidInput(
            f"no feature {name!r}{_hint(name, panel)}; strategies can read the columns of "
            "docs/features.md, ema_N, rsi_N and atr_N for any period N, and columns of the given "
            "features"
        )
    from backtest_pipeline.market.features import measures, rolling

    kind, period = match[1], int(match[2])
    if kind == "ema":
        return rolling.ema(panel["close"], panel.offsets, period)
    if kind == "rsi":
        return measures.rsi(panel["close"], panel.offsets, period)
    return rolling.wilder(measures.true_range(panel), panel.offsets, period)


def _hint(name: str, panel: Panel) -> str:
    near = get_close_matches(name, {*_CATALOGUED, *panel.columns}, n=1)
    return f"; did you mean {near[0]}?" if near else ""
