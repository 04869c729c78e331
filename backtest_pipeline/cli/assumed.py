"""What a run is asked to assume, from the words of a command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backtest_pipeline.market.errors import InvalidInput

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.identity import Asked
    from backtest_pipeline.simulation.costs import CostModel

Start = Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD.")]
End = Annotated[str | None, typer.Option(help="Day after the last, YYYY-MM-DD.")]
DirectionOption = Annotated[str, typer.Option(help="long, short or both.")]
Venue = Annotated[
    str | None, typer.Option(help="Costs of a venue, for example binance_perp; else 10 + 5 bps.")
]
FeeBps = Annotated[float | None, typer.Option(help="Fee per side in basis points.")]
SlippageBps = Annotated[float | None, typer.Option(help="Slippage in basis points.")]
FundingBpsDay = Annotated[
    float | None, typer.Option(help="Funding in basis points a day: longs pay, shorts receive.")
]
Funding = Annotated[
    Path | None, typer.Option(help="File of funding rates: symbol, ts, rate; for the flat rate.")
]
SizingOption = Annotated[
    str,
    typer.Option(
        help="fixed[:fraction=1], volatility:target=,lookback= or atr:risk=,atr_multiple="
    ),
]
Stops = Annotated[
    str,
    typer.Option(help="stop_loss=, take_profit=, trailing=, trailing_atr=, atr_period=, max_bars="),
]
Leverage = Annotated[float, typer.Option(help="Most gross exposure that entries lead to.")]
LotSize = Annotated[float, typer.Option(help="Units that a position is a multiple of.")]
MinNotional = Annotated[float, typer.Option(help="Smallest entry in the quote currency.")]
DelayBars = Annotated[int, typer.Option(help="Bars that signals are late beyond the next open.")]
BenchmarkOption = Annotated[
    str, typer.Option(help="asset, cash, universe or the symbol of another asset.")
]


@dataclass(frozen=True)
class Assumed:
    """The options as they were typed."""

    start: str | None = None
    end: str | None = None
    direction: str = "both"
    venue: str | None = None
    fee_bps: float | None = None
    slippage_bps: float | None = None
    funding_bps_day: float | None = None
    funding: Path | None = None
    sizing: str = "fixed"
    stops: str = ""
    leverage: float = 1.0
    lot_size: float = 0.0
    min_notional: float = 0.0
    delay_bars: int = 0
    benchmark: str = "asset"

    def asked(self) -> Asked:
        """The same as the pipeline takes it.

        Raises:
            UnknownName, InvalidInput, BarsError: for what makes no sense, and why.
        """
        from backtest_pipeline.pipeline.identity import Asked, Window
        from backtest_pipeline.pipeline.single_run import require_window
        from backtest_pipeline.simulation.assumptions import sizing_of, stops_of
        from backtest_pipeline.simulation.config import Direction, SimulationConfig
        from backtest_pipeline.simulation.funding import FundingRates
        from backtest_pipeline.sources.funding import read_funding

        window = Window(day_of(self.start, "--start"), day_of(self.end, "--end"))
        require_window(window)
        config = SimulationConfig(
            costs=self._costs(),
            sizing=sizing_of(self.sizing),
            stops=stops_of(self.stops),
            direction=Direction.of(self.direction),
            max_leverage=self.leverage,
            lot_size=self.lot_size,
            min_notional=self.min_notional,
            delay_bars=self.delay_bars,
        )
        rates = FundingRates.of(read_funding(self.funding)) if self.funding else None
        return Asked(config, window, self.benchmark, rates)

    def _costs(self) -> CostModel:
        from backtest_pipeline.simulation.costs import CostModel

        costs = CostModel.of_venue(self.venue) if self.venue else CostModel()
        given = {
            "fee_bps": self.fee_bps,
            "slippage_bps": self.slippage_bps,
            "funding_bps_day": self.funding_bps_day,
        }
        return replace(costs, **{name: v for name, v in given.items() if v is not None})


def day_of(text: str | None, option: str) -> date | None:
    """The day behind an option, None where it was not given; raises InvalidInput."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{option} {text!r} is not a day; write it as 2024-01-31") from None
