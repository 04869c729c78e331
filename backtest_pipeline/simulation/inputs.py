"""From a panel and a configuration to what an account walks over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.simulation.account import Bars, Rules, Walked, walk
from backtest_pipeline.simulation.config import Direction, SimulationConfig, with_config_columns
from backtest_pipeline.simulation.funding import FundingRates, funding_of_bars
from backtest_pipeline.simulation.orders import LONG_ENTRY, seen_events
from backtest_pipeline.simulation.sizing import FixedFractional, entry_fractions
from backtest_pipeline.simulation.stops import IntrabarOrder, StopRules

_NEVER = 2**62


def account_inputs(
    panel: Panel,
    events: np.ndarray,
    config: SimulationConfig,
    n_members: int,
    funding: FundingRates | None,
    finer: Panel | None,
) -> tuple[np.ndarray, Bars, Rules]:
    """The events that are seen, the bars and the rules, as `account.walk` wants them.

    Args:
        panel, events, config, funding, finer: as `batch.simulate_batch` takes them.
        n_members: assets that share an account.
    """
    panel = with_config_columns(panel, config)
    stops = config.stops
    no_atr = np.full(len(panel), np.nan)
    bars = Bars(
        open=panel["open"],
        high=panel["high"],
        low=panel["low"],
        close=panel["close"],
        atr=no_atr if stops.trailing_atr is None else panel[f"atr_{stops.atr_period}"],
        fraction=entry_fractions(panel, config.sizing, n_members, config.max_leverage),
        funding=funding_of_bars(panel, config.costs.funding_bps_day, funding),
        **_finer_bars(panel, finer),
        lot_size_of_asset=_by_asset(panel, "lot_size", config.lot_size),
        min_notional_of_asset=_by_asset(panel, "min_notional", config.min_notional),
    )
    rules = Rules(
        initial_cash=config.initial_cash,
        fee=config.costs.fee_bps / 1e4,
        slippage=config.costs.slippage_bps / 1e4,
        max_leverage=config.max_leverage,
        stop_loss=_or_nan(stops.stop_loss),
        take_profit=_or_nan(stops.take_profit),
        trailing=_or_nan(stops.trailing),
        trailing_atr=_or_nan(stops.trailing_atr),
        max_bars=_NEVER if stops.max_bars is None else stops.max_bars,
        target_first=config.intrabar is IntrabarOrder.TARGET_FIRST,
    )
    return seen_events(events, panel.offsets, config.direction, config.delay_bars), bars, rules


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _by_asset(panel: Panel, name: str, given: float | Mapping[str, float]) -> np.ndarray:
    if not isinstance(given, Mapping):
        return np.full(len(panel.assets), float(given))
    missing = [asset for asset in panel.assets if asset not in given]
    if missing:
        raise InvalidInput(f"{name} has no value for {', '.join(missing)}")
    return np.array([float(given[asset]) for asset in panel.assets])


def _finer_bars(panel: Panel, finer: Panel | None) -> dict[str, np.ndarray]:
    first, end = np.zeros((2, len(panel)), np.int64)
    if finer is None:
        nothing = np.empty(0)
        return {"fine_first": first, "fine_end": end, "fine_low": nothing, "fine_high": nothing}
    if finer.timeframe.days >= panel.timeframe.days:
        raise InvalidInput(
            f"bars of {finer.timeframe.name} are not finer than those of {panel.timeframe.name}"
        )
    starts = panel.timeframe.period_bounds(panel.ts)[0]
    for asset in set(panel.assets) & set(finer.assets):
        rows, fine = panel.rows_of(asset), finer.rows_of(asset)
        first[rows] = fine.start + np.searchsorted(finer.ts[fine], starts[rows], side="right")
        end[rows] = fine.start + np.searchsorted(finer.ts[fine], panel.ts[rows], side="right")
    return {
        "fine_first": first,
        "fine_end": end,
        "fine_low": finer["low"],
        "fine_high": finer["high"],
    }


def buy_and_hold(
    panel: Panel, config: SimulationConfig, funding: FundingRates | None = None
) -> np.ndarray:
    """Equity of holding each asset from its second bar's open on, the first that any run could.

    Args:
        panel: the bars.
        config: gives costs and starting cash.
        funding: rates by symbol.

    Returns:
        float64 `(n_rows,)`.
    """
    events = np.zeros((1, len(panel)), np.uint8)
    events[0, panel.offsets[:-1][panel.lengths > 0]] = LONG_ENTRY
    held = replace(
        config,
        direction=Direction.LONG,
        sizing=FixedFractional(1.0),
        stops=StopRules(),
        max_leverage=1.0,
        lot_size=0.0,
        min_notional=0.0,
        delay_bars=0,
    )
    seen, bars, rules = account_inputs(panel, events, held, 1, funding, None)
    return walk_alone(panel, seen, bars, rules).equity[0]


def walk_alone(panel: Panel, seen: np.ndarray, bars: Bars, rules: Rules) -> Walked:
    """Walk each asset of the panel in an account of its own."""
    table = np.arange(len(panel)).reshape(-1, 1)
    return walk(table, panel.offsets, np.arange(len(panel.assets)), seen, bars, rules)


def require_bars(panel: Panel, events: np.ndarray) -> None:
    """Raises InvalidInput where bars or events are not what an account can walk over."""
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
