"""Simulate many assets in one account (a book) on pandas objects."""

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
        equity, drawdown, benchmark: as in `SimulationResult`, at every timestamp of any asset.
        gross, net: gross and net exposure, value of the positions over equity.
        trades: one row per trade, with its asset.
        metrics, undefined: as in `SimulationResult`.
        pending: side to take at the next open, by asset; assets with nothing to do are left out.
        blocked_entries: number of entries that could not be sized, or were too small.
        conflicts: number of bars with entries of both sides, on which nothing was done.
        liquidated: whether the account lost all of its equity.
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
    blocked_entries: int
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
    """Simulate many assets that share one account; the order of assets does not matter.

    Args:
        bars: bars by asset, as for `simulate`.
        signals: by asset, boolean columns entries and exits, and optionally short_entries and
            short_exits, on the index of the asset's bars.
        costs, stops, initial_cash, max_leverage, timeframe: as in `simulate`.
        sizing: how much of the account's equity an entry uses; equal shares by default.
        funding: funding rates by asset; replaces the flat rate.
        lot_size, min_notional: order limits, for all assets or by asset.

    Raises:
        InvalidInput: if bars and signals name different assets, bars have different timeframes, or
            as in `simulate`.

    Examples:
        >>> import pandas as pd
        >>> from backtest_pipeline import simulate_book
        >>> index = pd.date_range("2024-01-01", periods=3, tz="UTC")
        >>> prices = pd.Series([100.0, 100.0, 110.0], index)
        >>> bars = pd.DataFrame({name: prices for name in ("open", "high", "low", "close")})
        >>> signals = pd.DataFrame({"entries": [True, False, False], "exits": False}, index)
        >>> book = simulate_book({"A": bars, "B": bars}, {"A": signals, "B": signals})
        >>> book.trades["asset"].tolist()
        ['A', 'B']
    """
    if set(bars) != set(signals) or not bars:
        odd = sorted(set(bars) ^ set(signals))
        raise InvalidInput(
            "bars and signals must have the same assets, at least one; only in one of them: "
            f"{', '.join(odd) or 'none'}"
        )
    panels = {asset: bars_panel(frame, timeframe, asset) for asset, frame in bars.items()}
    timeframes = {panel.timeframe.name: panel.timeframe for panel in panels.values()}
    if len(timeframes) > 1:
        raise InvalidInput(
            f"the bars have different timeframes ({', '.join(sorted(timeframes))}); use one for all"
        )
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


def _result(result: book.BookResult) -> BookSimulation:
    index = utc_index(result.ts)
    assets = result.panel.assets
    values = {name: float(column[0]) for name, column in result.metrics.items()}
    offsets = np.array([0, len(result.ts)])
    trades = trade_frame(result.trades)
    trades.insert(0, "asset", np.array(assets, object)[result.trades.column])

    def series(column: np.ndarray, name: str) -> pd.Series:
        return pd.Series(column, index, name=name)

    return BookSimulation(
        equity=series(result.equity[0], "equity"),
        drawdown=series(drawdowns(result.equity, offsets)[0], "drawdown"),
        gross=series(result.gross[0], "gross"),
        net=series(result.net[0], "net"),
        benchmark=series(result.benchmark, "benchmark"),
        trades=trades,
        metrics=defined(values),
        undefined=undefined_reasons(values),
        pending={
            asset: SIDES[int(side)]
            for asset, side in zip(assets, result.pending, strict=True)
            if side != NOTHING_PENDING
        },
        blocked_entries=int(result.refused[0]),
        conflicts=int(result.conflicts[0]),
        liquidated=bool(result.liquidated[0]),
    )
