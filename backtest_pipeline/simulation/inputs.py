"""From a panel and a configuration to what an account walks over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.price_levels import LARGEST_STEP, jumps
from backtest_pipeline.simulation.columns import entry_fractions, with_config_columns
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.engine import BAR, FINE_BAR, MEMBER, RULES, Simulated, simulate
from backtest_pipeline.simulation.funding import FundingRates, funding_of_bars
from backtest_pipeline.simulation.orders import LONG_ENTRY, seen_events
from backtest_pipeline.simulation.sizing import FixedFractional, Sizing
from backtest_pipeline.simulation.stops import IntrabarOrder

_NEVER = 2**62
_ROUNDING = 1e-9


@dataclass(frozen=True)
class AccountInputs:
    """What `account.simulate` walks over, beside a table of rows.

    Attributes:
        events: uint8 `(n_runs, n_rows)`, those that are seen, where they are seen.
        members: MEMBER `(n_assets,)`.
        bars: BAR `(n_rows,)`.
        fine_bars: FINE_BAR.
        rules: RULES `(1,)`.
    """

    events: np.ndarray
    members: np.ndarray
    bars: np.ndarray
    fine_bars: np.ndarray
    rules: np.ndarray

    def simulate(self, table: np.ndarray, bounds: np.ndarray, members: np.ndarray) -> Simulated:
        """Walk accounts of these members, given by the position of their assets."""
        return simulate(
            table,
            bounds,
            self.members[members],
            self.events,
            self.bars,
            self.fine_bars,
            self.rules,
        )

    def simulate_each(self, panel: Panel) -> Simulated:
        """Walk each asset of the panel in an account of its own."""
        table = np.arange(len(panel)).reshape(-1, 1)
        return self.simulate(table, panel.offsets, np.arange(len(panel.assets)))


def account_inputs(
    panel: Panel,
    events: np.ndarray,
    config: SimulationConfig,
    n_members: int,
    funding: FundingRates | None,
    finer: Panel | None,
) -> AccountInputs:
    """The events that are seen, the bars and the rules.

    Args:
        panel, events, config, funding, finer: as `batch.simulate_batch` takes them.
        n_members: assets that share an account.
    """
    panel = with_config_columns(panel, config)
    bars = np.zeros(len(panel), BAR)
    for name in ("open", "high", "low", "close"):
        bars[name] = panel[name]
    stops = config.stops
    bars["atr"] = np.nan if stops.trailing_atr is None else panel[f"atr_{stops.atr_period}"]
    bars["fraction"] = entry_fractions(panel, config.sizing, n_members, config.max_leverage)
    bars["funding"], bars["hole_funding"] = funding_of_bars(
        panel, config.costs.funding_bps_day, funding
    )
    members = np.zeros(len(panel.assets), MEMBER)
    members["asset"] = np.arange(len(panel.assets))
    members["lot_size"] = _by_asset(panel, "lot_size", config.lot_size)
    members["min_notional"] = _by_asset(panel, "min_notional", config.min_notional)
    return AccountInputs(
        events=seen_events(events, panel.offsets, config.direction, config.delay_bars),
        members=members,
        bars=bars,
        fine_bars=_with_finer_bars(bars, panel, finer),
        rules=_rules(config),
    )


def _rules(config: SimulationConfig) -> np.ndarray:
    rules, stops = np.zeros(1, RULES), config.stops
    rules["initial_cash"] = config.initial_cash
    rules["fee"] = config.costs.fee_bps / 1e4
    rules["slippage"] = config.costs.slippage_bps / 1e4
    rules["max_leverage"] = config.max_leverage
    for name in ("stop_loss", "take_profit", "trailing", "trailing_atr"):
        rules[name] = _or_nan(getattr(stops, name))
    rules["max_bars"] = _NEVER if stops.max_bars is None else stops.max_bars
    rules["target_first"] = config.intrabar is IntrabarOrder.TARGET_FIRST
    return rules


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _by_asset(panel: Panel, name: str, given: float | Mapping[str, float]) -> np.ndarray:
    if not isinstance(given, Mapping):
        return np.full(len(panel.assets), float(given))
    missing = [asset for asset in panel.assets if asset not in given]
    if missing:
        raise InvalidInput(f"{name} has no value for {', '.join(missing)}")
    return np.array([float(given[asset]) for asset in panel.assets])


def _with_finer_bars(bars: np.ndarray, panel: Panel, finer: Panel | None) -> np.ndarray:
    """The finer bars; `bars` is given the first and last of its own among them."""
    if finer is None:
        return np.zeros(0, FINE_BAR)
    if finer.timeframe.days >= panel.timeframe.days:
        raise InvalidInput(
            f"bars of {finer.timeframe.name} are not finer than those of {panel.timeframe.name}"
        )
    require_bars(finer)
    starts, ends = panel.timeframe.period_bounds(panel.ts)
    fine_starts = finer.timeframe.period_bounds(finer.ts)[0]
    for asset in set(panel.assets) & set(finer.assets):
        rows, fine = panel.rows_of(asset), finer.rows_of(asset)
        for name, bound in (("fine_first", starts), ("fine_end", ends)):
            at = np.searchsorted(fine_starts[fine], bound[rows])
            bars[name][rows] = fine.start + at
        _require_within(panel, rows, finer, bars)
    fine_bars = np.zeros(len(finer), FINE_BAR)
    fine_bars["low"], fine_bars["high"] = finer["low"], finer["high"]
    return fine_bars


def _require_within(panel: Panel, rows: slice, finer: Panel, bars: np.ndarray) -> None:
    """Raises InvalidInput where finer bars of one asset leave the range of their bar."""
    first, end = bars["fine_first"][rows], bars["fine_end"][rows]
    of_bar = np.repeat(np.arange(rows.start, rows.stop), end - first)
    fine = np.concatenate([np.empty(0, np.int64), *map(np.arange, first, end)])
    outside = (finer["low"][fine] < panel["low"][of_bar] * (1 - _ROUNDING)) | (
        finer["high"][fine] > panel["high"][of_bar] * (1 + _ROUNDING)
    )
    bad = np.zeros(len(finer), bool)
    bad[fine[outside]] = True
    _refuse(finer, bad, f"low or high lies outside the bar of {panel.timeframe.name} around it")


def buy_and_hold(panel: Panel, config: SimulationConfig) -> np.ndarray:
    """Equity of holding each asset from its second bar's open on, the first that any run could.

    What is held is the asset itself, not a contract on it: it pays fee and slippage, no funding.

    Args:
        panel: the bars.
        config: gives costs and starting cash.

    Returns:
        float64 `(n_rows,)`.
    """
    events = np.zeros((1, len(panel)), np.uint8)
    events[0, panel.offsets[:-1][panel.lengths > 0]] = LONG_ENTRY
    held = holding(config, FixedFractional())
    return account_inputs(panel, events, held, 1, None, None).simulate_each(panel).equity[0]


def holding(config: SimulationConfig, sizing: Sizing) -> SimulationConfig:
    """Assumptions of whoever buys and holds at the fees and slippage of a run."""
    return SimulationConfig(
        costs=replace(config.costs, funding_bps_day=0.0),
        sizing=sizing,
        direction=Direction.LONG,
        initial_cash=config.initial_cash,
    )


def require_events(panel: Panel, events: np.ndarray) -> None:
    """Raises InvalidInput where bars or events are not what an account can walk over."""
    if events.ndim != 2 or events.shape[1] != len(panel) or events.dtype != np.uint8:
        raise InvalidInput(
            f"signals must be uint8 of shape (runs, {len(panel)}), not "
            f"{events.dtype} of shape {events.shape}"
        )
    require_bars(panel)


def require_bars(panel: Panel) -> None:
    """Raises InvalidInput for bars that are not sorted, whole, or of one market."""
    open_, high, low, close = (panel[name] for name in ("open", "high", "low", "close"))
    follows = np.diff(panel.ts, prepend=0) > 0
    follows[panel.offsets[:-1][panel.lengths > 0]] = True
    _refuse(panel, ~follows, "the stamp is not after the one before it")
    for name, column in (("open", open_), ("high", high), ("low", low), ("close", close)):
        _refuse(panel, ~(np.isfinite(column) & (column > 0)), f"{name} is not a positive number")
    # A close above the high would let a short lose more than it has.
    outside = (np.maximum(open_, close) > high) | (np.minimum(open_, close) < low)
    _refuse(panel, outside, "open or close lies outside low..high")
    _refuse(panel, jumps(panel) != 0, f"the price jumps {LARGEST_STEP:g}-fold or more")


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
