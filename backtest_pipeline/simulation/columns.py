"""Indicators that sizing and stops need besides the bars."""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.features import rolling, with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.sizing import (
    AtrRisk,
    EqualWeight,
    FixedFractional,
    Sizing,
    VolatilityScaled,
)


def with_config_columns(panel: Panel, config: SimulationConfig) -> Panel:
    """The panel with the indicators that stops and sizing need.

    Call it before cutting a panel to a window: indicators depend on the bars before it.
    """
    panel = with_sizing_columns(panel, config.sizing)
    if config.stops.trailing_atr is None:
        return panel
    return with_indicators(panel, [f"atr_{config.stops.atr_period}"])


def volatility_column(lookback: int) -> str:
    """Name of the panel column with the annualised volatility of `lookback` returns."""
    return f"volatility_{lookback}"


def with_sizing_columns(panel: Panel, sizing: Sizing) -> Panel:
    """The panel with the indicator that the sizing needs, computed from its bars if missing."""
    if isinstance(sizing, AtrRisk):
        return with_indicators(panel, [f"atr_{sizing.atr_period}"])
    if isinstance(sizing, VolatilityScaled):
        name = volatility_column(sizing.lookback)
        if name not in panel.columns:
            change = panel["close"] / rolling.previous(panel["close"], panel.offsets) - 1.0
            deviation = rolling.deviation(change, panel.offsets, sizing.lookback)
            return panel.with_columns({name: deviation * panel.timeframe.bars_per_year**0.5})
    return panel


def entry_fractions(
    panel: Panel, sizing: Sizing, n_members: int, max_leverage: float
) -> np.ndarray:
    """Fraction of equity that an entry at each bar's open uses.

    Args:
        panel: from `with_sizing_columns`.
        sizing: sizing mode.
        n_members: number of assets of the account.
        max_leverage: largest fraction.

    Returns:
        float64 `(n_rows,)`, from indicators at the previous close; NaN during their warm-up.
    """
    if isinstance(sizing, FixedFractional):
        fraction = np.full(len(panel), sizing.fraction)
    elif isinstance(sizing, EqualWeight):
        fraction = np.full(len(panel), 1.0 / (sizing.n_assets or n_members))
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            if isinstance(sizing, VolatilityScaled):
                known = rolling.previous(panel[volatility_column(sizing.lookback)], panel.offsets)
                fraction = sizing.target / known
            else:
                known = rolling.previous(panel[f"atr_{sizing.atr_period}"], panel.offsets)
                fraction = sizing.risk * panel["open"] / (sizing.atr_multiple * known)
    return np.minimum(fraction, max_leverage)
