"""From a panel and a configuration to what accounts trade over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.price_levels import LARGEST_STEP, jumps
from backtest_pipeline.simulation.columns import (
    atr_periods,
    distances_of,
    entry_distances,
    entry_fractions,
    lagged_column,
    sizings_of,
    with_config_columns,
)
from backtest_pipeline.simulation.config import Direction, PositionRules, SimulationConfig
from backtest_pipeline.simulation.engine import (
    BAR,
    BY_NUMBER,
    FINE_BAR,
    MEMBER,
    RULES,
    Followed,
    Simulated,
    simulate,
)
from backtest_pipeline.simulation.funding import FundingRates, funding_of_bars
from backtest_pipeline.simulation.marks import Marks, held_marks, marked_equity
from backtest_pipeline.simulation.orders import LONG_ENTRY, seen_events
from backtest_pipeline.simulation.rules import RulesOfRuns
from backtest_pipeline.simulation.trades import trade_log
from backtest_pipeline.simulation.vectorbt_engine.held_by_vectorbt import require_held_by_vectorbt
from backtest_pipeline.simulation.vectorbt_engine.simulated import simulate_with_vectorbt
from backtest_pipeline.trading.engine_names import EngineName
from backtest_pipeline.trading.sizing import FixedFractional, Sizing
from backtest_pipeline.trading.stops import DISTANCES, IntrabarOrder

_NEVER = 2**62
_ROUNDING = 1e-9


@dataclass(frozen=True)
class AccountInputs:
    """What accounts trade over, beside a table of rows; see `engine.simulate`.

    Attributes:
        events: uint8 `(n_runs, n_rows)`, those that are seen, where they are seen.
        members: MEMBER `(n_assets,)`.
        bars: BAR `(n_rows,)`.
        fine_bars: FINE_BAR.
        atr, atr_before: float64 `(n_periods, n_rows)`.
        fractions: float64 `(n_sizings, n_rows)`.
        distances: float64 `(n_distances, n_rows)`.
        rules: RULES `(n_rules,)`.
        rules_of: which of them a run trades by.
        engine_name: who simulates it.
    """

    events: np.ndarray
    members: np.ndarray
    bars: np.ndarray
    fine_bars: np.ndarray
    atr: np.ndarray
    atr_before: np.ndarray
    fractions: np.ndarray
    distances: np.ndarray
    rules: np.ndarray
    rules_of: RulesOfRuns
    engine_name: EngineName = EngineName.ACCOUNT

    def simulate_each(self, panel: Panel) -> Simulated:
        """Trade each asset of the panel in an account of its own."""
        if self.engine_name is EngineName.VECTORBT:
            return simulate_with_vectorbt(self, panel)
        stretches = self.rules_of.stretches
        table, members = np.arange(len(panel)).reshape(-1, 1), np.arange(len(panel.assets))
        if stretches is None:
            return self._simulate(table, panel.offsets, np.append(members, len(members)), members)
        accounts = np.searchsorted(stretches, panel.offsets)
        return self._simulate(table, stretches, accounts, members)

    def simulate_together(
        self, table: np.ndarray, members: np.ndarray, followed: Followed | None = None
    ) -> Simulated:
        """Trade all assets in one account, whose members stand at these positions.

        Args:
            table, followed: as `engine.simulate` takes them.
            members: positions of the account's members among the assets.

        Raises:
            InvalidInput: for the engine vectorbt.
        """
        if self.engine_name is EngineName.VECTORBT:
            raise InvalidInput(
                "engine vectorbt: the cash that it shares depends on the order of assets, so a "
                "book of several is simulated by the account; leave engine out"
            )
        one = np.array([0, 1])
        return self._simulate(table, one * len(table), one, members, followed)

    def _simulate(
        self,
        table: np.ndarray,
        stretches: np.ndarray,
        accounts: np.ndarray,
        members: np.ndarray,
        followed: Followed | None = None,
    ) -> Simulated:
        return simulate(
            table,
            stretches,
            accounts,
            self.members[members],
            self.events,
            self.bars,
            self.fine_bars,
            self.atr,
            self.atr_before,
            self.fractions,
            self.distances,
            self.rules,
            np.ascontiguousarray(self.rules_of.of[:, : len(stretches) - 1]),
            followed,
        )


def account_inputs(
    panel: Panel,
    events: np.ndarray,
    config: SimulationConfig,
    n_members: int = 1,
    funding: FundingRates | None = None,
    finer: Panel | None = None,
    rules: RulesOfRuns | None = None,
) -> AccountInputs:
    """The events that are seen, the bars and the rules.

    Args:
        panel, events, config, funding, finer, rules: as `batch.simulate_batch` takes them.
        n_members: assets that share an account.
    """
    rules = rules or RulesOfRuns.by_run([config.rules] * len(events), len(panel.assets))
    if config.engine is EngineName.VECTORBT:
        require_held_by_vectorbt(
            config,
            rules.distinct,
            has_funding=funding is not None,
            has_finer_bars=finer is not None,
            in_stretches=rules.stretches is not None,
        )
    panel = with_config_columns(panel, config, rules.distinct)
    bars = np.zeros(len(panel), BAR)
    for name in ("open", "high", "low", "close"):
        bars[name] = panel[name]
    bars["funding"], bars["hole_funding"] = funding_of_bars(
        panel, config.costs.funding_bps_day, funding
    )
    members = np.zeros(len(panel.assets), MEMBER)
    members["asset"] = np.arange(len(panel.assets))
    members["lot_size"] = _by_asset(panel, "lot_size", config.lot_size)
    members["min_notional"] = _by_asset(panel, "min_notional", config.min_notional)
    periods, sizings = atr_periods(rules.distinct), sizings_of(rules.distinct)
    distances = distances_of(rules.distinct)
    names = [f"atr_{period}" for period in periods]
    return AccountInputs(
        events=seen_events(events, panel.offsets, config.direction, config.delay_bars),
        members=members,
        bars=bars,
        fine_bars=_with_finer_bars(bars, panel, finer),
        atr=_stacked(panel, names),
        atr_before=_stacked(panel, [lagged_column(name, 1) for name in names]),
        fractions=np.array(
            [
                entry_fractions(panel, one, n_members, config.max_leverage, config.delay_bars)
                for one in sizings
            ]
        ).reshape(len(sizings), len(panel)),
        distances=np.array(
            [entry_distances(panel, *one, config.delay_bars) for one in distances], np.float64
        ).reshape(len(distances), len(panel)),
        rules=_rules(config, rules.distinct, periods, sizings, distances),
        rules_of=rules,
        engine_name=config.engine,
    )


def _stacked(panel: Panel, names: Sequence[str]) -> np.ndarray:
    """Columns as rows, float64 `(n_names, n_rows)`; one of NaN where there is none."""
    if not names:
        return np.full((1, len(panel)), np.nan)
    return np.stack([panel[name] for name in names])


def _rules(
    config: SimulationConfig,
    distinct: Sequence[PositionRules],
    periods: Sequence[int],
    sizings: Sequence[Sizing],
    distances: Sequence[tuple[str, str]],
) -> np.ndarray:
    rules = np.zeros(len(distinct), RULES)
    of_sizing = {sizing: position for position, sizing in enumerate(sizings)}
    rules["initial_cash"] = config.initial_cash
    rules["fee"] = config.costs.fee_bps / 1e4
    rules["slippage"] = config.costs.slippage_bps / 1e4
    rules["max_leverage"] = config.max_leverage
    rules["target_first"] = config.intrabar is IntrabarOrder.TARGET_FIRST
    for row, one in zip(rules, distinct, strict=True):
        stops = one.stops
        for name in DISTANCES:
            given = getattr(stops, name)
            by_row = isinstance(given, str)
            row[name] = np.nan if given is None or by_row else float(given)
            row[f"{name}_by"] = distances.index((name, given)) if by_row else BY_NUMBER
        row["by_row"] = bool(stops.expressions)
        row["max_bars"] = _NEVER if stops.max_bars is None else stops.max_bars
        row["cooldown"] = one.cooldown_bars
        row["atr"] = periods.index(stops.atr_period) if stops.trailing_atr is not None else 0
        row["sizing"] = of_sizing[one.sizing]
    return rules


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


def buy_and_hold(panel: Panel, marks: Marks, config: SimulationConfig) -> np.ndarray:
    """Equity of holding each asset from its second bar's open on, the first that any run could.

    What is held is the asset itself, not a contract on it: it pays fee and slippage, no funding.

    Args:
        panel: the bars.
        marks: when to mark the equity.
        config: gives costs and starting cash.

    Returns:
        float64 `(n_marks,)`.
    """
    events = np.zeros((1, len(panel)), np.uint8)
    events[0, panel.offsets[:-1][panel.lengths > 0]] = LONG_ENTRY
    held = holding(config, FixedFractional())
    simulated = account_inputs(panel, events, held).simulate_each(panel)
    trades = trade_log(panel, simulated.trades)
    at = held_marks(panel, marks, trades, held.costs.slippage_bps / 1e4)
    return marked_equity(panel, marks, simulated.equity, trades, at, held.costs)[0]


def holding(config: SimulationConfig, sizing: Sizing) -> SimulationConfig:
    """Assumptions of whoever buys and holds at the fees and slippage of a run."""
    return SimulationConfig(
        costs=replace(config.costs, funding_bps_day=0.0),
        sizing=sizing,
        direction=Direction.LONG,
        initial_cash=config.initial_cash,
    )


def require_events(panel: Panel, events: np.ndarray) -> None:
    """Raises InvalidInput where bars or events are not what an account can trade over."""
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


def unusable(panel: Panel) -> np.ndarray:
    """Rows that no account can trade on, bool `(n_rows,)`: bad prices, and steps of 100-fold."""
    prices = [panel[name] for name in ("open", "high", "low", "close")]
    open_, high, low, close = prices
    bad = ~np.logical_and.reduce([np.isfinite(one) & (one > 0) for one in prices])
    outside = (np.maximum(open_, close) > high) | (np.minimum(open_, close) < low)
    return bad | outside | (jumps(panel) != 0)


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
