"""Breakout: the close leaves the channel of the bars before it."""

from __future__ import annotations

from pydantic import Field

from backtest_pipeline.market.features import rolling
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.strategy import Params, Strategy
from backtest_pipeline.trading.conditions import Conditions
from backtest_pipeline.trading.stops import StopRules


class AtrBreakout(Params):
    """Channel of `lookback` bars before the current one; trailing stop in multiples of the ATR.

    The stop is a rule of the account, intrabar; a run that names stops of its own has those.
    """

    lookback: int = Field(default=20, ge=1, le=1000)
    atr_period: int = Field(default=14, ge=2, le=200)
    trail_mult: float = Field(default=2.0, gt=0, le=100)


def _columns(_params: AtrBreakout) -> tuple[str, ...]:
    return ("high", "low", "close")


def _conditions(panel: Panel, params: AtrBreakout) -> Conditions:
    offsets, n = panel.offsets, params.lookback
    highest = rolling.previous(rolling.highest(panel["high"], offsets, n), offsets)
    lowest = rolling.previous(rolling.lowest(panel["low"], offsets, n), offsets)
    above, below = panel["close"] > highest, panel["close"] < lowest
    return Conditions(long_entry=above, long_exit=below, short_entry=below, short_exit=above)


STRATEGY = Strategy(
    name="atr_breakout",
    params_type=AtrBreakout,
    columns=_columns,
    conditions=_conditions,
    stops=lambda p: StopRules(trailing_atr=p.trail_mult, atr_period=p.atr_period),
    grid={
        "lookback": range(10, 101, 10),
        "trail_mult": (1, 1.5, 2, 2.5, 3, 4, 5, 6),
        "atr_period": (7, 14, 28),
    },
)
