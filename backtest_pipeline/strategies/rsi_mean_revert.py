"""Mean reversion: the RSI comes back from an extreme."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from backtest_pipeline.market.features.rolling import crosses_above, quantile
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.strategy import Params, Strategy
from backtest_pipeline.trading.conditions import Conditions


class RsiMeanRevert(Params):
    """RSI period in bars and the bounds of its normal range.

    With `percentile_window` the bounds are percentiles of the RSI over that many bars, the
    current one included, and `lower` and `upper` are those percentiles.
    """

    period: int = Field(default=14, ge=2, le=200)
    lower: float = Field(default=30.0, gt=0, lt=100)
    upper: float = Field(default=70.0, gt=0, lt=100)
    percentile_window: int | None = Field(default=None, ge=10, le=2000)

    @model_validator(mode="after")
    def _lower_is_lower(self) -> Self:
        if self.lower >= self.upper:
            raise ValueError(f"lower ({self.lower}) must be below upper ({self.upper})")
        return self


def _columns(params: RsiMeanRevert) -> tuple[str, ...]:
    return (f"rsi_{params.period}",)


def _conditions(panel: Panel, params: RsiMeanRevert) -> Conditions:
    rsi = panel[f"rsi_{params.period}"]
    if params.percentile_window is None:
        lower = np.full(len(panel), params.lower)
        upper = np.full(len(panel), params.upper)
    else:
        window = params.percentile_window
        lower = quantile(rsi, panel.offsets, window, params.lower / 100)
        upper = quantile(rsi, panel.offsets, window, params.upper / 100)
    return Conditions(
        long_entry=crosses_above(rsi, lower, panel.offsets),
        long_exit=rsi >= upper,
        short_entry=crosses_above(upper, rsi, panel.offsets),
        short_exit=rsi <= lower,
    )


STRATEGY = Strategy(
    name="rsi_mean_revert",
    params_type=RsiMeanRevert,
    columns=_columns,
    conditions=_conditions,
    grid={"lower": range(15, 46, 5), "upper": range(55, 86, 5), "period": (7, 10, 14, 21, 28)},
)
