"""What a trade costs: fees, slippage and funding, and the fees that venues take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.trading.bounds import require_number


@dataclass(frozen=True)
class CostModel:
    """Costs of a fill, and of holding.

    Attributes:
        fee_bps: fee in basis points of notional, on each side. 0 is 0.
        slippage_bps: basis points by which a fill is worse than the price it aims at.
        funding_bps_day: basis points of notional a day that longs pay and shorts receive; negative
            the other way. A table of rates by symbol takes its place where one is given.

    Raises:
        InvalidInput: for a negative or non-finite fee or slippage, or a rate of 100 % and more.
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
        """Costs of a venue, or else the default, with what is given (not None) in their place.

        Raises:
            UnknownName: for a venue that there is not.
            InvalidInput: for a cost that makes no sense.

        Examples:
            >>> CostModel.of("binance_perp", slippage_bps=2.0)
            CostModel(fee_bps=5.0, slippage_bps=2.0, funding_bps_day=3.0)
        """
        costs = CostModel.of_venue(venue) if venue else CostModel()
        return replace(costs, **{name: v for name, v in given.items() if v is not None})

    @staticmethod
    def of_venue(name: str) -> CostModel:
        """The costs of a venue's lowest tier.

        Raises:
            UnknownName: for a venue that is not in VENUES.
        """
        if name not in VENUES:
            raise UnknownName("venue", name, VENUES)
        return VENUES[name]


# Taker fees of the lowest tier as the venues' fee pages gave them in 2025. Perpetuals carry the
# interest part of funding that these venues share, 0.01 % each 8 hours. Slippage is this
# project's default, not a venue's.
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
