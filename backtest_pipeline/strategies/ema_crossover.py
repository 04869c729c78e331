"""Trend following: a fast average of closes crosses a slow one."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from backtest_pipeline.market.features.rolling import crosses_above
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.strategy import Params, Strategy
from backtest_pipeline.trading.conditions import Conditions


class EmaCrossover(Params):
    """Periods in bars; filters apply to entries alone, None is off.

    `min_atr_pct` is a fraction of the close: 0.01 asks for an ATR of 1 %. After an exit a side
    rests for `cooldown_bars` whole bars.
    """

    fast: int = Field(default=9, ge=1, le=1000)
    slow: int = Field(default=21, ge=2, le=1000)
    rsi_min_long: float | None = Field(default=None, ge=0, le=100)
    rsi_max_short: float | None = Field(default=None, ge=0, le=100)
    min_atr_pct: float | None = Field(default=None, ge=0, le=1)
    cooldown_bars: int = Field(default=0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be below slow ({self.slow})")
        return self


def _columns(params: EmaCrossover) -> tuple[str, ...]:
    columns = [f"ema_{params.fast}", f"ema_{params.slow}"]
    if params.rsi_min_long is not None or params.rsi_max_short is not None:
        columns.append("rsi_14")
    if params.min_atr_pct is not None:
        columns += ["atr_14", "close"]
    return tuple(columns)


def _conditions(panel: Panel, params: EmaCrossover) -> Conditions:
    fast, slow = panel[f"ema_{params.fast}"], panel[f"ema_{params.slow}"]
    crossed_up = crosses_above(fast, slow, panel.offsets)
    crossed_down = crosses_above(slow, fast, panel.offsets)
    long_entry, short_entry = crossed_up, crossed_down
    if params.rsi_min_long is not None:
        long_entry = long_entry & (panel["rsi_14"] >= params.rsi_min_long)
    if params.rsi_max_short is not None:
        short_entry = short_entry & (panel["rsi_14"] <= params.rsi_max_short)
    if params.min_atr_pct is not None:
        moves_enough = panel["atr_14"] / panel["close"] >= params.min_atr_pct
        long_entry, short_entry = long_entry & moves_enough, short_entry & moves_enough
    return Conditions(
        long_entry=np.asarray(long_entry),
        long_exit=crossed_down,
        short_entry=np.asarray(short_entry),
        short_exit=crossed_up,
    )


STRATEGY = Strategy(
    name="ema_crossover",
    params_type=EmaCrossover,
    columns=_columns,
    conditions=_conditions,
    cooldown=lambda params: params.cooldown_bars,
    grid={"fast": range(5, 51, 5), "slow": range(20, 201, 20)},
)
