"""Indicators of any period, for panels that hold the catalogue's periods only."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel

_PERIODIC = re.compile(r"(ema|rsi|atr)_(\d+)")


def is_derived(name: str) -> bool:
    """Whether `with_indicators` computes a column of this name from bars alone."""
    return _PERIODIC.fullmatch(name) is not None


def with_indicators(panel: Panel, names: Sequence[str]) -> Panel:
    """The panel with the named columns added, computed from its bars where missing.

    Args:
        panel: at least high, low and close from each asset's first bar on: EMAs and Wilder's
            averages depend on all earlier bars, so a later start gives other values.
        names: columns of the panel, or `ema_N`, `rsi_N`, `atr_N` for any period N.

    Raises:
        InvalidInput: for any other name.
    """
    missing = [name for name in names if name not in panel.columns]
    if not missing:
        return panel
    from backtest_pipeline.market.features import measures, rolling

    offsets = panel.offsets
    computed = {}
    for name in missing:
        match = _PERIODIC.fullmatch(name)
        if match is None:
            raise InvalidInput(
                f"no feature {name!r}; strategies can read {', '.join(panel.columns)}, "
                "and ema_N, rsi_N and atr_N for any period N"
            )
        kind, period = match[1], int(match[2])
        if kind == "ema":
            computed[name] = rolling.ema(panel["close"], offsets, period)
        elif kind == "rsi":
            computed[name] = measures.rsi(panel["close"], offsets, period)
        else:
            computed[name] = rolling.wilder(measures.true_range(panel), offsets, period)
    return panel.with_columns(computed)
