"""Mean reversion: the close comes back into its Bollinger bands."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from backtest_pipeline.market.features.rolling import crosses_above, deviation, mean
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.strategy import Params, Strategy
from backtest_pipeline.trading.conditions import Conditions


class BollingerRevert(Params):
    """Bars of the mean, and half the width of the bands in population deviations (ddof 0)."""

    period: int = Field(default=20, ge=2, le=1000)
    width: float = Field(default=2.0, gt=0, le=10)


def _columns(_: BollingerRevert) -> tuple[str, ...]:
    return ("close",)


def _conditions(panel: Panel, params: BollingerRevert) -> Conditions:
    close, offsets, n = panel["close"], panel.offsets, params.period
    middle = mean(close, offsets, n)
    spread = params.width * deviation(close, offsets, n) * np.sqrt((n - 1) / n)
    lower, upper = middle - spread, middle + spread
    return Conditions(
        long_entry=crosses_above(close, lower, offsets),
        long_exit=close >= middle,
        short_entry=crosses_above(upper, close, offsets),
        short_exit=close <= middle,
    )


STRATEGY = Strategy(
    name="bollinger_revert",
    params_type=BollingerRevert,
    columns=_columns,
    conditions=_conditions,
    grid={"period": range(10, 61, 5), "width": (1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3)},
)
