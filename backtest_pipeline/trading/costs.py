"""Trading costs: fees, slippage and funding, with presets of venues."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.trading.bounds import require_number


@dataclass(frozen=True)
class CostModel:
    """Costs of a fill, and of holding a position.

    Attributes:
        fee_bps: fee per side, basis points of notional: 10 on 10,000 USDT costs 10 USDT to buy and
            about as much again to sell. 0 means no fee.
        slippage_bps: basis points by which each fill is worse than its reference price.
        funding_bps_day: basis points of notional per day that longs pay to shorts; negative if
            shorts pay. Ignored if funding rates by symbol are given.

    Raises:
        InvalidInput: for a fee or slippage that is negative, or any cost of 100 % or more.

    Examples:
        >>> CostModel(fee_bps=5.0)
        CostModel(fee_bps=5.0, slippage_bps=5.0, funding_bps_day=0.0)
    """

    fee_bps: float = 10.0
    slippage_bps: float = 5.0
    funding_bps_day: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fee_bps", "slippage_bps"):
            require_number(name, getattr(self, name), least=0, below=10_000)
        require_number("funding_bps_day", self.funding_bps_day, above=-10_000, below=10_000)

    @staticmethod
    def of(venue: str | None = None, **given: float | None) -> CostModel:
        """Costs of a venue, or the defaults, with the given ones (other than None) replaced.

        Raises:
            UnknownName: for a venue that does not exist.
            InvalidInput: for a cost out of range.

        Examples:
            >>> CostModel.of("binance_perp", slippage_bps=2.0)
            CostModel(fee_bps=5.0, slippage_bps=2.0, funding_bps_day=3.0)
        """
        costs = CostModel.of_venue(venue) if venue else CostModel()
        return replace(costs, **{name: v for name, v in given.items() if v is not None})

    @staticmethod
    def of_venue(name: str) -> CostModel:
        """Taker costs of a venue's lowest fee tier; raises UnknownName for one not in VENUES."""
        if name not in VENUES:
            raise UnknownName("venue", name, VENUES)
        return VENUES[name]


# Taker fees of the lowest tier, from the venues' fee pages in 2025. Perpetuals carry the interest
# component of funding that these venues share, 0.01 % per 8 hours. Slippage is this project's
# default, not a venue's.
_PERPETUAL_FUNDING = 3.0
VENUES: dict[str, CostModel] = {
    "binance_spot": CostModel(10.0),
    "binance_perp": CostModel(5.0, funding_bps_day=_PERPETUAL_FUNDING),
    "bybit_spot": CostModel(10.0),
    "bybit_perp": CostModel(5.5, funding_bps_day=_PERPETUAL_FUNDING),
    "okx_spot": CostModel(10.0),
    "okx_perp": CostModel(5.0, funding_bps_day=_PERPETUAL_FUNDING),
    "kraken_spot": CostModel(40.0),
}
