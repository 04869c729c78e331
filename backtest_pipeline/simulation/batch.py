"""One batch: signals of many runs over one panel, simulated at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.engine import Fills, fill_orders
from backtest_pipeline.simulation.equity import EquityCurves, equity_curves
from backtest_pipeline.simulation.metrics import compute_metrics_batch
from backtest_pipeline.simulation.orders import LONG_ENTRY, NOTHING_PENDING, Orders, resolve_orders
from backtest_pipeline.simulation.sizing import FixedFractional
from backtest_pipeline.simulation.trades import Trades, trade_log


@dataclass(frozen=True)
class BatchResult:
    """What a batch of runs came to.

    Attributes:
        panel: the bars.
        equity: float64 `(n_runs, n_rows)`, at each bar's close.
        benchmark: float64 `(n_rows,)`, equity of buy and hold of each asset at the same costs.
        trades: all trades.
        metrics: one `(n_columns,)` array per metric of the dictionary.
        pending: int8 `(n_columns,)`, side that the last bar's signal asks for, or
            NOTHING_PENDING.
        liquidated: bool `(n_columns,)`.
    """

    panel: Panel
    equity: np.ndarray
    benchmark: np.ndarray
    trades: Trades
    metrics: dict[str, np.ndarray]
    pending: np.ndarray
    liquidated: np.ndarray


@dataclass(frozen=True)
class _Account:
    orders: Orders
    fills: Fills
    curves: EquityCurves


def simulate_batch(panel: Panel, events: np.ndarray, config: SimulationConfig) -> BatchResult:
    """Trade every run's signals on every asset of the panel, each column on its own.

    Args:
        panel: bars with open, high, low, close.
        events: uint8 `(n_runs, n_rows)`, see `simulation.orders`.
        config: costs, sizing, direction and starting cash.

    Raises:
        InvalidInput: where the shapes do not fit, stamps are not strictly increasing, a price is
            not a positive number, or an open or close lies outside low..high.
    """
    _require_bars(panel, events)
    account = _trade(panel, events, config)
    held = _trade(panel, _buy_and_hold(panel), _benchmark_config(config))
    liquidated = account.curves.liquidation_row >= 0
    trades = trade_log(panel, account.orders, account.fills, account.curves)
    return BatchResult(
        panel=panel,
        equity=account.curves.equity,
        benchmark=held.curves.equity[0],
        trades=trades,
        metrics=compute_metrics_batch(
            panel,
            account.curves.equity,
            held.curves.equity[0],
            trades,
            account.curves.bars_in_position,
            _traded_notional(account),
        ),
        pending=np.where(liquidated, np.int8(NOTHING_PENDING), account.orders.pending),
        liquidated=liquidated,
    )


def _trade(panel: Panel, events: np.ndarray, config: SimulationConfig) -> _Account:
    orders = resolve_orders(events, panel.offsets, config.direction)
    fraction = np.full(len(orders.row), config.sizing.fraction)
    fills = fill_orders(orders, panel["open"][orders.row], config, fraction)
    curves = equity_curves(panel, events.shape[0], orders, fills, config.initial_cash)
    return _Account(orders, fills, curves)


def _buy_and_hold(panel: Panel) -> np.ndarray:
    """Signals that enter at the second bar's open, the first at which any run could."""
    events = np.zeros((1, len(panel)), np.uint8)
    events[0, panel.offsets[:-1][panel.lengths > 0]] = LONG_ENTRY
    return events


def _benchmark_config(config: SimulationConfig) -> SimulationConfig:
    return replace(config, direction=Direction.LONG, sizing=FixedFractional(1.0))


def _traded_notional(account: _Account) -> np.ndarray:
    fills, curves = account.fills, account.curves
    column = account.orders.column[fills.order]
    done = np.arange(len(fills.order)) < curves.fills_done[column]
    notional = np.abs(fills.size) * fills.price * done
    return np.bincount(column, weights=notional, minlength=len(curves.fills_done))


def _require_bars(panel: Panel, events: np.ndarray) -> None:
    if events.ndim != 2 or events.shape[1] != len(panel) or events.dtype != np.uint8:
        raise InvalidInput(
            f"signals must be uint8 of shape (runs, {len(panel)}), not "
            f"{events.dtype} of shape {events.shape}"
        )
    open_, high, low, close = (panel[name] for name in ("open", "high", "low", "close"))
    follows = np.diff(panel.ts, prepend=0) > 0
    follows[panel.offsets[:-1][panel.lengths > 0]] = True
    _refuse(panel, ~follows, "the stamp is not after the one before it")
    for name, column in (("open", open_), ("high", high), ("low", low), ("close", close)):
        _refuse(panel, ~(np.isfinite(column) & (column > 0)), f"{name} is not a positive number")
    # A close above the high would let a short lose more than it has.
    outside = (np.maximum(open_, close) > high) | (np.minimum(open_, close) < low)
    _refuse(panel, outside, "open or close lies outside low..high")


def _refuse(panel: Panel, bad: np.ndarray, problem: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows) == 0:
        return
    row = int(rows[0])
    prices = ", ".join(f"{name} {float(panel[name][row])!r}" for name in OHLCV[:4])
    raise InvalidInput(
        f"{panel.assets[int(panel.segment_of_row[row])]}|{panel.timeframe.name}: {problem} at "
        f"{panel.ts[row : row + 1].view('M8[us]')[0]} UTC ({prices}; {len(rows)} such rows); "
        "validate the bars first"
    )
