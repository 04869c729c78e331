"""Breakout: the close leaves the channel of the bars before it."""

from __future__ import annotations

import numpy as np
from numba import njit
from pydantic import Field

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.strategy import Conditions, Params, Strategy


class AtrBreakout(Params):
    """Channel of `lookback` bars before the current one; trailing stop in multiples of the ATR."""

    lookback: int = Field(default=20, ge=1, le=1000)
    atr_period: int = Field(default=14, ge=2, le=200)
    trail_mult: float = Field(default=2.0, gt=0, le=100)


def _columns(params: AtrBreakout) -> tuple[str, ...]:
    return ("high", "low", "close", f"atr_{params.atr_period}")


@njit(cache=True, nogil=True)
def _breakouts(high, low, close, atr, offsets, lookback, trail_mult, entry, exit_):
    for a in range(len(offsets) - 1):
        first = offsets[a]
        held, stop = False, -np.inf
        for t in range(first + lookback, offsets[a + 1]):
            highest, lowest = -np.inf, np.inf
            for k in range(t - lookback, t):
                highest = max(highest, high[k])
                lowest = min(lowest, low[k])
            if held:
                if close[t] < lowest or close[t] < stop:
                    exit_[t] = True
                    held = False
            elif close[t] > highest:
                entry[t] = True
                held, stop = True, -np.inf
            if held and not np.isnan(atr[t]):
                # The stop only rises, and a missing ATR leaves it where it was.
                stop = max(stop, close[t] - trail_mult * atr[t])


def _conditions(panel: Panel, params: AtrBreakout) -> Conditions:
    high, low, close = panel["high"], panel["low"], panel["close"]
    atr = panel[f"atr_{params.atr_period}"]
    long_entry, long_exit, short_entry, short_exit = np.zeros((4, len(panel)), bool)
    rules = (panel.offsets, params.lookback, params.trail_mult)
    _breakouts(high, low, close, atr, *rules, long_entry, long_exit)
    # A short is a long in the mirrored market.
    _breakouts(-low, -high, -close, atr, *rules, short_entry, short_exit)
    return Conditions(long_entry, long_exit, short_entry, short_exit)


STRATEGY = Strategy(
    name="atr_breakout",
    params_type=AtrBreakout,
    columns=_columns,
    conditions=_conditions,
    grid={
        "lookback": range(10, 101, 10),
        "trail_mult": (1, 1.5, 2, 2.5, 3, 4, 5, 6),
        "atr_period": (7, 14, 28),
    },
)
