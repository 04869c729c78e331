"""Position sizing: how much of the equity an entry uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from backtest_pipeline.trading.bounds import require_number, require_whole


@dataclass(frozen=True)
class FixedFractional:
    """Each entry uses the same fraction of the equity at its fill.

    Fees come out of the same cash, so a fraction of 1 buys as much as cash covers, fees included.

    Examples:
        >>> FixedFractional(0.5)
        FixedFractional(fraction=0.5)
    """

    fraction: Annotated[
        float, Field(description="fraction of equity, above 0 and at most max_leverage")
    ] = 1.0

    def __post_init__(self) -> None:
        require_number("fraction", self.fraction, above=0)


@dataclass(frozen=True)
class EqualWeight:
    """Each entry uses equity / number of assets.

    Examples:
        >>> EqualWeight(n_assets=4)
        EqualWeight(n_assets=4)
    """

    n_assets: Annotated[
        int | None,
        Field(description="assets that share the equity; null for all assets of the account"),
    ] = None

    def __post_init__(self) -> None:
        if self.n_assets is not None:
            require_whole("n_assets", self.n_assets, least=1)


@dataclass(frozen=True)
class VolatilityScaled:
    """Each entry targets a volatility: fraction of equity = target / volatility of the asset.

    Examples:
        >>> VolatilityScaled(target=0.3)
        VolatilityScaled(target=0.3, lookback=30)
    """

    target: Annotated[float, Field(description="target volatility per year, a fraction")] = 0.2
    lookback: Annotated[int, Field(description="bars to measure the asset's volatility over")] = 30

    def __post_init__(self) -> None:
        require_number("target", self.target, above=0)
        require_whole("lookback", self.lookback, least=2)


@dataclass(frozen=True)
class AtrRisk:
    """Each entry risks a fixed fraction of equity over a move of some average true ranges (ATR).

    Examples:
        >>> AtrRisk(risk=0.02, atr_multiple=3.0)
        AtrRisk(risk=0.02, atr_multiple=3.0, atr_period=14)
    """

    risk: Annotated[
        float, Field(description="fraction of equity lost if the price moves by the distance")
    ] = 0.01
    atr_multiple: Annotated[float, Field(description="the distance, in average true ranges")] = 2.0
    atr_period: Annotated[int, Field(description="bars of Wilder's average true range")] = 14

    def __post_init__(self) -> None:
        require_number("risk", self.risk, above=0, most=1)
        require_number("atr_multiple", self.atr_multiple, above=0)
        require_whole("atr_period", self.atr_period, least=2)


@dataclass(frozen=True)
class ByExpression:
    """Each entry uses the fraction of equity that an expression has at its signal's bar.

    An entry is blocked where the expression is undefined, 0 or less.

    Examples:
        >>> ByExpression("0.02 / (atr_14 / close)")
        ByExpression(fraction='0.02 / (atr_14 / close)')
    """

    fraction: Annotated[
        str,
        Field(description="fraction of equity, an expression of docs/rules.md", max_length=2000),
    ]


Sizing = FixedFractional | EqualWeight | VolatilityScaled | AtrRisk | ByExpression

SIZINGS: dict[str, type[Sizing]] = {
    "fixed": FixedFractional,
    "equal": EqualWeight,
    "volatility": VolatilityScaled,
    "atr": AtrRisk,
    "expression": ByExpression,
}
"""Sizing modes by their names in specs."""
