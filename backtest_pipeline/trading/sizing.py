"""How much of the equity an entry uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from backtest_pipeline.trading.bounds import require_number, require_whole


@dataclass(frozen=True)
class FixedFractional:
    """Each entry uses the same fraction of the equity at its fill.

    Fees come out of the same cash, so that a fraction of 1 buys as much as the cash pays for.
    """

    fraction: Annotated[
        float, Field(description="fraction of equity, above 0 and at most max_leverage")
    ] = 1.0

    def __post_init__(self) -> None:
        require_number("fraction", self.fraction, above=0)


@dataclass(frozen=True)
class EqualWeight:
    """Each entry uses the same share of the account's equity, one for each asset."""

    n_assets: Annotated[
        int | None, Field(description="assets that share the equity; those of the account if null")
    ] = None

    def __post_init__(self) -> None:
        if self.n_assets is not None:
            require_whole("n_assets", self.n_assets, least=1)


@dataclass(frozen=True)
class VolatilityScaled:
    """Positions as large as brings the asset's volatility to a target."""

    target: Annotated[float, Field(description="annual volatility, a fraction")] = 0.2
    lookback: Annotated[int, Field(description="bars that measure the asset's own")] = 30

    def __post_init__(self) -> None:
        require_number("target", self.target, above=0)
        require_whole("lookback", self.lookback, least=2)


@dataclass(frozen=True)
class AtrRisk:
    """Positions that lose a fixed fraction of the equity over a distance in average true ranges."""

    risk: Annotated[float, Field(description="fraction of equity that the distance costs")] = 0.01
    atr_multiple: Annotated[float, Field(description="the distance, average true ranges")] = 2.0
    atr_period: Annotated[int, Field(description="bars of Wilder's average true range")] = 14

    def __post_init__(self) -> None:
        require_number("risk", self.risk, above=0, most=1)
        require_number("atr_multiple", self.atr_multiple, above=0)
        require_whole("atr_period", self.atr_period, least=2)


Sizing = FixedFractional | EqualWeight | VolatilityScaled | AtrRisk

SIZINGS: dict[str, type[Sizing]] = {
    "fixed": FixedFractional,
    "equal": EqualWeight,
    "volatility": VolatilityScaled,
    "atr": AtrRisk,
}
"""The modes by the names that specs call them."""
