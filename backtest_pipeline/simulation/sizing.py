"""How much of the equity an entry uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.features import rolling, with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.bounds import require_number, require_whole


@dataclass(frozen=True)
class FixedFractional:
    """Each entry uses the same fraction of the equity at its fill.

    Attributes:
        fraction: above 0, and at most the account's `max_leverage`. Fees come out of the same cash,
            so that a fraction of 1 buys as much as the cash pays for.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        require_number("fraction", self.fraction, above=0)


@dataclass(frozen=True)
class EqualWeight:
    """Each entry uses the same share of the account's equity, one for each asset.

    Attributes:
        n_assets: assets that share the equity; None counts those of the account.
    """

    n_assets: int | None = None

    def __post_init__(self) -> None:
        if self.n_assets is not None:
            require_whole("n_assets", self.n_assets, least=1)


@dataclass(frozen=True)
class VolatilityScaled:
    """Positions as large as brings the asset's volatility to a target.

    Attributes:
        target: annual volatility, a fraction.
        lookback: bars whose returns measure the asset's own.
    """

    target: float = 0.2
    lookback: int = 30

    def __post_init__(self) -> None:
        require_number("target", self.target, above=0)
        require_whole("lookback", self.lookback, least=2)


@dataclass(frozen=True)
class AtrRisk:
    """Positions that lose a fixed fraction of the equity over a distance in average true ranges.

    Attributes:
        risk: fraction of the equity that the distance costs.
        atr_multiple: the distance, in average true ranges.
        atr_period: bars of Wilder's average.
    """

    risk: float = 0.01
    atr_multiple: float = 2.0
    atr_period: int = 14

    def __post_init__(self) -> None:
        require_number("risk", self.risk, above=0, most=1)
        require_number("atr_multiple", self.atr_multiple, above=0)
        require_whole("atr_period", self.atr_period, least=2)


Sizing = FixedFractional | EqualWeight | VolatilityScaled | AtrRisk


def volatility_column(lookback: int) -> str:
    """Name of the panel column that holds the volatility of `lookback` returns."""
    return f"volatility_{lookback}"


def with_sizing_columns(panel: Panel, sizing: Sizing) -> Panel:
    """The panel with what the sizing reads, computed from all of its bars where it lacks it."""
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
    """Fraction of the equity that an entry at each bar's open uses.

    Args:
        panel: from `with_sizing_columns`.
        sizing: the mode.
        n_members: assets of the account.
        max_leverage: the cap.

    Returns:
        float64 `(n_rows,)`, from what was known at the close before; NaN where nothing was.
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
