"""Many assets on plain pandas objects: one book, whose cash they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.simulation import book
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.metrics.equity import drawdowns
from backtest_pipeline.simulation.metrics.metrics import undefined_reasons
from backtest_pipeline.simulation.orders import NOTHING_PENDING
from backtest_pipeline.simulation.pandas_objects.frames import bars_panel, events_of
from backtest_pipeline.simulation.pandas_objects.single import SIDES, defined, trade_frame
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import EqualWeight, Sizing
from backtest_pipeline.trading.stops import StopRules


@dataclass(frozen=True)
class BookSimulation:
    """The result of one book.

    Attributes:
        equity, drawdown, benchmark: as in `SimulationResult`, at every stamp that any asset has.
        gross, net: value of the positions over the equity, without and with regard to their side.
        trades: one row per trade, with its asset.
        metrics, undefined: as in `SimulationResult`.
        pending: by asset the side that its last signal asks for; assets without one are left out.
        refused: entries that could not be sized, or were too small.
        conflicts: bars on which both sides would have been entered; nothing was done on them.
        liquidated: whether the equity was lost.
    """

    equity: pd.Series
    drawdown: pd.Series
    gross: pd.Series
    net: pd.Series
    benchmark: pd.Series
    trades: pd.DataFrame
    metrics: dict[str, float | None]
    undefined: dict[str, str]
    pending: dict[str, str]
    refused: int
    conflicts: int
    liquidated: bool


def simulate_book(
    bars: Mapping[str, pd.DataFrame],
    signals: Mapping[str, pd.DataFrame],
    *,
    costs: CostModel | None = None,
    sizing: Sizing | None = None,
    stops: StopRules | None = None,
    funding: Mapping[str, pd.Series] | None = None,
    initial_cash: float = 10_000.0,
    max_leverage: float = 1.0,
    lot_size: float | Mapping[str, float] = 0.0,
    min_notional: float | Mapping[str, float] = 0.0,
    timeframe: str | None = None,
) -> BookSimulation:
    """Trade many assets out of one account; the order of assets plays no part.

    Args:
        bars: for each asset what `simulate` takes.
        signals: for each asset boolean columns entries and exits, and, both or neither,
            short_entries and short_exits, on the index of its bars.
        costs, stops, initial_cash, max_leverage, timeframe: as in `simulate`.
        sizing: how much of the book's equity an entry uses; equal parts where not given.
        funding: rates by asset, in place of the flat rate.
        lot_size, min_notional: limits of an order, for all assets or by asset.

    Raises:
        InvalidInput: for assets without signals or signals without bars, bars of different
            timeframes, or what `simulate` refuses.
    """
    if set(bars) != set(signals) or not bars:
        odd = sorted(set(bars) ^ set(signals))
        raise InvalidInput(
            f"bars and signals must name the same assets, at least one; {', '.join(odd) or 'none'}"
            " is in one of them only"
        )
    panels = {asset: bars_panel(frame, timeframe, asset) for asset, frame in bars.items()}
    timeframes = {panel.timeframe.name: panel.timeframe for panel in panels.values()}
    if len(timeframes) > 1:
        raise InvalidInput(f"the bars are of {', '.join(sorted(timeframes))}; give one timeframe")
    (tf,) = timeframes.values()
    columns = ("open", "high", "low", "close")
    panel = Panel.join(tf, tuple(panels), list(panels.values()), columns)
    events = [events_of(_columns(signals[asset]), bars[asset].index) for asset in panels]
    config = SimulationConfig(
        costs=costs or CostModel(),
        sizing=sizing or EqualWeight(),
        stops=stops or StopRules(),
        direction=Direction.BOTH,
        initial_cash=initial_cash,
        max_leverage=max_leverage,
        lot_size=lot_size,
        min_notional=min_notional,
    )
    rates = None if funding is None else FundingRates.of(funding)
    return _result(book.simulate_book(panel, np.concatenate(events, axis=1), config, funding=rates))


def _columns(signals: pd.DataFrame) -> dict[str, pd.Series | None]:
    return {str(name): pd.Series(signals[name]) for name in signals.columns}


def _result(found: book.BookResult) -> BookSimulation:
    index = utc_index(found.ts)
    assets = found.panel.assets
    values = {name: float(column[0]) for name, column in found.metrics.items()}
    offsets = np.array([0, len(found.ts)])
    trades = trade_frame(found.trades)
    trades.insert(0, "asset", np.array(assets, object)[found.trades.column])

    def series(column: np.ndarray, name: str) -> pd.Series:
        return pd.Series(column, index, name=name)

    return BookSimulation(
        equity=series(found.equity[0], "equity"),
        drawdown=series(drawdowns(found.equity, offsets)[0], "drawdown"),
        gross=series(found.gross[0], "gross"),
        net=series(found.net[0], "net"),
        benchmark=series(found.benchmark, "benchmark"),
        trades=trades,
        metrics=defined(values),
        undefined=undefined_reasons(values),
        pending={
            asset: SIDES[int(side)]
            for asset, side in zip(assets, found.pending, strict=True)
            if side != NOTHING_PENDING
        },
        refused=int(found.refused[0]),
        conflicts=int(found.conflicts[0]),
        liquidated=bool(found.liquidated[0]),
    )
