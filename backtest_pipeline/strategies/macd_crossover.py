"""Momentum: the MACD crosses its signal line."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from backtest_pipeline.market.features.rolling import crosses_above, ema
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.strategy import Params, Strategy
from backtest_pipeline.trading.conditions import Conditions


class MacdCrossover(Params):
    """Periods in bars: the MACD is EMA(fast) - EMA(slow), its signal line an EMA of it."""

    fast: int = Field(default=12, ge=1, le=1000)
    slow: int = Field(default=26, ge=2, le=1000)
    signal: int = Field(default=9, ge=2, le=1000)

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be below slow ({self.slow})")
        return self


def _columns(params: MacdCrossover) -> tuple[str, ...]:
    return (f"ema_{params.fast}", f"ema_{params.slow}")


def _conditions(panel: Panel, params: MacdCrossover) -> Conditions:
    macd = panel[f"ema_{params.fast}"] - panel[f"ema_{params.slow}"]
    line = ema(macd, panel.offsets, params.signal)
    crossed_up = crosses_above(macd, line, panel.offsets)
    crossed_down = crosses_above(line, macd, panel.offsets)
    return Conditions(
        long_entry=crossed_up,
        long_exit=crossed_down,
        short_entry=crossed_down,
        short_exit=crossed_up,
    )


STRATEGY = Strategy(
    name="macd_crossover",
    params_type=MacdCrossover,
    columns=_columns,
    conditions=_conditions,
    grid={"fast": range(6, 21, 2), "slow": range(20, 51, 5), "signal": (5, 7, 9, 12, 15)},
)
