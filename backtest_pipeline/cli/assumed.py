"""What a run is asked to assume, from the words of a command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from backtest_pipeline.market.errors import InvalidInput

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.identity import Asked


Start = Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD.")]
End = Annotated[str | None, typer.Option(help="Day after the last, YYYY-MM-DD.")]


@dataclass(frozen=True)
class Assumed:
    """What may be assumed, as it was typed; each field is an option of its name."""

    start: Start = None
    end: End = None
    direction: Annotated[str, typer.Option(help="long, short or both.")] = "both"
    venue: Annotated[
        str | None,
        typer.Option(help="Costs of a venue, for example binance_perp; else 10 + 5 bps."),
    ] = None
    fee_bps: Annotated[float | None, typer.Option(help="Fee per side in basis points.")] = None
    slippage_bps: Annotated[float | None, typer.Option(help="Slippage in basis points.")] = None
    funding_bps_day: Annotated[
        float | None,
        typer.Option(help="Funding in basis points a day: longs pay, shorts receive."),
    ] = None
    funding: Annotated[
        Path | None,
        typer.Option(help="File of funding rates: symbol, ts, rate; for the flat rate."),
    ] = None
    sizing: Annotated[
        str,
        typer.Option(
            help="fixed[:fraction=1], volatility:target=,lookback= or atr:risk=,atr_multiple="
        ),
    ] = "fixed"
    stops: Annotated[
        str,
        typer.Option(
            help="stop_loss=, take_profit=, trailing=, trailing_atr=, atr_period=, max_bars="
        ),
    ] = ""
    leverage: Annotated[float, typer.Option(help="Most gross exposure that entries lead to.")] = 1.0
    lot_size: Annotated[float, typer.Option(help="Units that a position is a multiple of.")] = 0.0
    min_notional: Annotated[float, typer.Option(help="Smallest entry in the quote currency.")] = 0.0
    delay_bars: Annotated[
        int, typer.Option(help="Bars that signals are late beyond the next open.")
    ] = 0

    def asked(self) -> Asked:
        """The same as the pipeline takes it.

        Raises:
            UnknownName, InvalidInput, BarsError: for what makes no sense, and why.
        """
        from backtest_pipeline.pipeline.identity import Asked, Window
        from backtest_pipeline.pipeline.traded import require_window
        from backtest_pipeline.simulation.assumptions import costs_of, sizing_of, stops_of
        from backtest_pipeline.simulation.config import Direction, SimulationConfig
        from backtest_pipeline.simulation.funding import FundingRates
        from backtest_pipeline.sources.funding import read_funding

        window = Window(day_of(self.start, "--start"), day_of(self.end, "--end"))
        require_window(window)
        config = SimulationConfig(
            costs=costs_of(
                self.venue,
                fee_bps=self.fee_bps,
                slippage_bps=self.slippage_bps,
                funding_bps_day=self.funding_bps_day,
            ),
            sizing=sizing_of(self.sizing),
            stops=stops_of(self.stops),
            direction=Direction.of(self.direction),
            max_leverage=self.leverage,
            lot_size=self.lot_size,
            min_notional=self.min_notional,
            delay_bars=self.delay_bars,
        )
        rates = FundingRates.of(read_funding(self.funding)) if self.funding else None
        return Asked(config, window, funding=rates)


@dataclass(frozen=True)
class Compared(Assumed):
    """The same, and what the run is compared with."""

    benchmark: Annotated[
        str, typer.Option(help="asset, cash, universe or the symbol of another asset.")
    ] = "asset"

    def asked(self) -> Asked:
        return replace(super().asked(), benchmark=self.benchmark)


def assuming(command: Callable[..., None]) -> Callable[..., None]:
    """A command with an option for each field of its parameter `assumptions`, in that place."""
    hints = get_type_hints(command, include_extras=True)
    kind = hints["assumptions"]
    hint_of = get_type_hints(kind, include_extras=True)

    @wraps(command)
    def assembled(**given: Any) -> None:
        assumed = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given, assumptions=assumed)

    shown: list[Parameter] = []
    for name, own in signature(command).parameters.items():
        if name == "assumptions":
            shown += [
                Parameter(f.name, own.kind, default=f.default, annotation=hint_of[f.name])
                for f in fields(kind)
            ]
        else:
            shown.append(own.replace(annotation=hints[name]))
    vars(assembled)["__signature__"] = Signature(shown)
    return assembled


def day_of(text: str | None, option: str) -> date | None:
    """The day behind an option, None where it was not given; raises InvalidInput."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{option} {text!r} is not a day; write it as 2024-01-31") from None
