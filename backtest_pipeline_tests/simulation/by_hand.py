"""The product and the slow simulator side by side: what goes in, and that the same comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, MICROSECONDS, timeframe
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.blocked_entries import CAUSES, Refusals
from backtest_pipeline.simulation.book import BookResult, simulate_book
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.orders import NOTHING_PENDING
from backtest_pipeline.simulation.trades import EXIT_REASONS, STOP_KINDS, Trades
from backtest_pipeline.trading.sizing import (
    AtrRisk,
    ByExpression,
    EqualWeight,
    FixedFractional,
    VolatilityScaled,
)
from backtest_pipeline.trading.stops import IntrabarOrder
from backtest_pipeline_tests.simulation.reference import Account, Asset, Rules, run_account
from backtest_pipeline_tests.simulation.reference_sizing import (
    average_true_range,
    expression_values,
    risk_fractions,
    volatility,
    volatility_fractions,
)
from backtest_pipeline_tests.simulation.reference_trade import Bar, Stops

WHY = {
    "no size": "the sizing has no value above 0 at the signal's bar",
    "no stop": "the distance of a stop or target is undefined or out of bounds at the signal's bar",
    "no room": "gross exposure is at max_leverage",
    "no lot": "order below one lot_size",
    "too little notional": "order below min_notional",
}
ALLOWED = {Direction.LONG: 3, Direction.SHORT: 12, Direction.BOTH: 15}
MINUTE_US = MICROSECONDS["MIN"]
DISTANCES = ("stop_loss", "take_profit", "trailing", "trailing_atr")
FRACTIONS = ("stop_loss", "trailing")  # of a price, which a long cannot lose more than
PRICES = ("open", "high", "low", "close")
Rates = Mapping[str, pd.Series]


def hand_rules(config: SimulationConfig) -> Rules:
    """The assumptions as plain numbers."""
    return Rules(
        cash=config.initial_cash,
        fee=config.costs.fee_bps / 1e4,
        slippage=config.costs.slippage_bps / 1e4,
        max_leverage=config.max_leverage,
        delay_bars=config.delay_bars,
        cooldown_bars=config.cooldown_bars,
        allowed=ALLOWED[config.direction],
    )


def hand_asset(
    panel: Panel,
    name: str,
    config: SimulationConfig,
    rates: Rates | None,
    finer: Panel | None,
    n_assets: int,
) -> Asset:
    """One asset of a panel as plain numbers, without signals; its account has `n_assets`."""
    rows = panel.rows_of(name)
    start, end = (bound.tolist() for bound in panel.timeframe.period_bounds(panel.ts[rows]))
    prices = np.column_stack([panel[column][rows] for column in PRICES]).tolist()
    flat = config.costs.funding_bps_day / 1e4
    paid = None if rates is None else _minutes(rates[name])
    within = [] if finer is None else _ranges(finer, name)
    bars = [
        Bar(
            time,
            *prices[t],
            rate=flat * (end[t] - start[t]) / DAY_US
            if paid is None
            else sum(r for m, r in paid if start[t] < m <= end[t]),
            hole_rate=flat * (start[t] - before) / DAY_US
            if paid is None
            else sum(r for m, r in paid if before < m <= start[t]),
            finer=tuple((low, high) for ts, low, high in within if start[t] <= ts < end[t]),
        )
        for t, (time, before) in enumerate(
            zip(panel.ts[rows].tolist(), [*start[:1], *end[:-1]], strict=True)
        )
    ]
    return Asset(
        bars,
        [],
        _hand_fractions(bars, config, n_assets, panel.timeframe.bars_per_year),
        _hand_stops(bars, config),
        average_true_range(bars, config.stops.atr_period),
        _of_asset(config.lot_size, name),
        _of_asset(config.min_notional, name),
    )


def _minutes(rates: pd.Series) -> list[tuple[int, float]]:
    """Rates with their instants, to the nearest minute, in microseconds."""
    instants = [int(stamp.timestamp() * 1e6) for stamp in pd.DatetimeIndex(rates.index)]
    nearest = [(us + MINUTE_US // 2) // MINUTE_US * MINUTE_US for us in instants]
    return list(zip(nearest, rates.tolist(), strict=True))


def _ranges(finer: Panel, name: str) -> list[tuple[int, float, float]]:
    rows = finer.rows_of(name)
    lows, highs = finer["low"][rows].tolist(), finer["high"][rows].tolist()
    return list(zip(finer.ts[rows].tolist(), lows, highs, strict=True))


def _of_asset(given: float | Mapping[str, float], name: str) -> float:
    return given[name] if isinstance(given, Mapping) else given


def _hand_fractions(
    bars: list[Bar], config: SimulationConfig, n_assets: int, bars_per_year: float
) -> list[float]:
    sizing = config.rules.sizing
    if not bars:
        return []
    if isinstance(sizing, FixedFractional):
        return [sizing.fraction] * len(bars)
    if isinstance(sizing, EqualWeight):
        return [1 / (sizing.n_assets or n_assets)] * len(bars)
    if isinstance(sizing, AtrRisk):
        atr = average_true_range(bars, sizing.atr_period)
        return risk_fractions(bars, atr, sizing.risk, sizing.atr_multiple, config.delay_bars)
    if isinstance(sizing, ByExpression):
        return expression_values(bars, sizing.fraction, config.delay_bars)
    assert isinstance(sizing, VolatilityScaled)
    known = volatility(bars, sizing.lookback, bars_per_year)
    return volatility_fractions(known, sizing.target, config.delay_bars)


def _hand_stops(bars: list[Bar], config: SimulationConfig) -> list[Stops]:
    """The stops of an entry at each bar's open; those that are expressions differ by bar."""
    rules, late = config.stops, config.delay_bars
    by_bar = {
        name: expression_values(bars, text, late, 1.0 if name in FRACTIONS else math.inf)
        for name, text in rules.expressions.items()
    }
    plain = Stops(
        **{name: getattr(rules, name) for name in DISTANCES if name not in by_bar},
        max_bars=rules.max_bars,
        target_first=config.intrabar is IntrabarOrder.TARGET_FIRST,
    )
    return [
        replace(plain, **{name: values[t] for name, values in by_bar.items()})
        for t in range(len(bars))
    ]


def check_batch(
    panel: Panel,
    signals: np.ndarray,
    config: SimulationConfig,
    rates: Rates | None = None,
    finer: Panel | None = None,
) -> list[Account]:
    """The hand's account of each column, after the product was found to have the same."""
    result = simulate_batch(
        with_config_columns(panel, config), signals, config, funding=_table(rates), finer=finer
    )
    rules = hand_rules(config)
    assets = [hand_asset(panel, name, config, rates, finer, 1) for name in panel.assets]
    accounts = []
    for run, of_run in enumerate(signals):
        for i, asset in enumerate(assets):
            rows = panel.rows_of(panel.assets[i])
            hand = run_account([replace(asset, signals=of_run[rows].tolist())], rules)
            assert_column_is(result, run * len(assets) + i, run, rows, hand)
            accounts.append(hand)
    return accounts


def assert_column_is(
    result: BatchResult, column: int, run: int, rows: slice, hand: Account
) -> None:
    """One column of a batch is the account by hand."""
    assert_money(result.equity[run, rows], hand.equity, hand, "equity")
    assert result.liquidated[column] == hand.ruined
    assert result.refused[column] == hand.refused
    assert_trades(result.panel, result.trades, column, hand, 0)
    assert_refusals(result.panel, result.refusals, column, hand, 0)
    assert result.pending[column] == _pending(hand.pending[0])
    if hand.equity:
        held = sum(trade.bars_held for trade in hand.trades[0])
        assert result.metrics["exposure"][column] == held / len(hand.equity)


def check_book(
    panel: Panel,
    signals: np.ndarray,
    config: SimulationConfig,
    rates: Rates | None = None,
    finer: Panel | None = None,
) -> list[Account]:
    """The hand's account of each run of a book, after the product was found to have the same."""
    result = simulate_book(
        with_config_columns(panel, config), signals, config, funding=_table(rates), finer=finer
    )
    assert result.ts.tolist() == sorted(set(panel.ts.tolist()))
    rules, names = hand_rules(config), panel.assets
    assets = [hand_asset(panel, name, config, rates, finer, len(names)) for name in names]
    accounts = []
    for run, of_run in enumerate(signals):
        hand = run_account(
            [
                replace(asset, signals=of_run[panel.rows_of(name)].tolist())
                for name, asset in zip(names, assets, strict=True)
            ],
            rules,
        )
        assert_run_is(result, panel, run, hand)
        accounts.append(hand)
    return accounts


def assert_run_is(result: BookResult, panel: Panel, run: int, hand: Account) -> None:
    """One run of a book is the account by hand."""
    assert_money(result.equity[run], hand.equity, hand, "equity")
    # Exposures are money over equity: a small equity magnifies what money is rounded by.
    scale = 1e-12 * largest(hand) / np.maximum(hand.equity, 1e-300)
    for name in ("gross", "net"):
        off = np.abs(getattr(result, name)[run] - np.array(getattr(hand, name)))
        allowed = np.maximum(scale, 1e-12) * (1 + np.array(hand.gross))
        assert np.all(off <= allowed), name
    assert result.liquidated[run] == hand.ruined
    assert result.refused[run] == hand.refused
    for asset in range(len(panel.assets)):
        column = run * len(panel.assets) + asset
        assert_trades(panel, result.trades, column, hand, asset)
        assert_refusals(panel, result.refusals, column, hand, asset)
        assert result.pending[column] == _pending(hand.pending[asset])


def assert_trades(panel: Panel, trades: Trades, column: int, hand: Account, asset: int) -> None:
    """The trades of a column are those by hand: decisions exactly, money to rounding."""
    ours = trades.take(np.flatnonzero(trades.column == column))
    theirs = hand.trades[asset]
    assert [EXIT_REASONS[i] for i in ours.exit_reason] == [t.reason for t in theirs]
    assert ours.side.tolist() == [t.side for t in theirs]
    assert ours.number.tolist() == list(range(1, len(ours) + 1))
    assert ours.bars_held.tolist() == [t.bars_held for t in theirs]
    assert ours.is_open.tolist() == [t.reason == "end_of_data" for t in theirs]
    first, stop = panel.offsets[column % len(panel.assets) :][:2].tolist()
    entries = panel.ts[[first + t.entry_bar for t in theirs]] if theirs else panel.ts[:0]
    assert np.array_equal(ours.entry_ts, panel.timeframe.period_bounds(entries)[0])
    ends = np.array([t.exit_time for t in theirs], np.int64)
    opens = panel.timeframe.period_bounds(ends)[0]
    at_open = np.array([t.at_open for t in theirs], bool)
    # An equity that is zero at the very open is so by rounding: the account may also end just
    # after it, at the same price.
    at = np.minimum(np.searchsorted(panel.ts[first:stop], ends), stop - first - 1)
    bar_opens = panel["open"][first:stop][at]
    just_zero = np.array([t.reason == "liquidation" for t in theirs], bool) & np.isclose(
        [t.exit_price for t in theirs], bar_opens, rtol=1e-12, atol=0
    )
    same = ours.exit_ts == np.where(at_open, opens, ends)
    assert np.all(same | (just_zero & ((ours.exit_ts == opens) | (ours.exit_ts == ends))))
    assert_money(ours.entry_price, [t.entry_price for t in theirs], hand, "entry_price")
    assert_money(ours.exit_price, [t.exit_price for t in theirs], hand, "exit_price")
    for name in ("size", "fees", "slippage_cost", "funding", "pnl"):
        assert_money(getattr(ours, name), [getattr(t, name) for t in theirs], hand, name)
    stops = [t.entry_stop or (math.nan, "none") for t in theirs]
    assert [(*STOP_KINDS, "none")[kind] for kind in ours.entry_stop_kind] == [s[1] for s in stops]
    np.testing.assert_allclose(ours.entry_stop, [s[0] for s in stops], rtol=1e-12)
    for name in ("mae", "mfe"):
        by_hand = [getattr(t, name) for t in theirs]
        np.testing.assert_allclose(
            getattr(ours, name), by_hand, rtol=1e-11, atol=1e-12, err_msg=name
        )


def assert_refusals(
    panel: Panel, refusals: Refusals, column: int, hand: Account, asset: int
) -> None:
    """What a column was refused is what the account by hand was, at the same bars."""
    ours = np.flatnonzero(refusals.column == column)
    theirs = hand.refusals[asset]
    stamps = panel.ts[panel.rows_of(panel.assets[column % len(panel.assets)])]
    assert refusals.number[ours].tolist() == list(range(1, len(theirs) + 1))
    assert refusals.ts[ours].tolist() == [stamps[r.bar] for r in theirs]
    assert refusals.side[ours].tolist() == [r.side for r in theirs]
    found = [CAUSES[code].detail for code in refusals.cause[ours].tolist()]
    assert found == [WHY[r.why] for r in theirs]
    units = [r.units for r in theirs]
    np.testing.assert_allclose(refusals.size[ours], units, rtol=1e-11, err_msg="refused units")


def largest(hand: Account) -> float:
    """The scale that the account's money is rounded on."""
    notionals = [t.size * t.entry_price for trades in hand.trades for t in trades]
    return max([1.0, *hand.equity, *notionals])


def assert_money(ours: np.ndarray, theirs: list[float], hand: Account, name: str) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * largest(hand), err_msg=name)


def _pending(side: int | None) -> int:
    return NOTHING_PENDING if side is None else side


def _table(rates: Rates | None) -> FundingRates | None:
    return None if rates is None else FundingRates.of(rates)


def hand_panel(frames: Mapping[str, pd.DataFrame], name: str = "1D") -> Panel:
    """Hand-made bars, indexed by their opens, as a panel."""
    tf = timeframe(name)
    panel = Panel.stack(tf, frames, PRICES)
    stamps = tf.period_bounds(panel.ts)[1] - CLOSE_STAMP_US
    return Panel(tf, panel.assets, panel.offsets, stamps, panel.columns)


def trade_one(
    bars: pd.DataFrame,
    signals: Mapping[int, int],
    config: SimulationConfig,
    rates: pd.Series | None = None,
    finer: pd.DataFrame | None = None,
    name: str = "1D",
) -> Account:
    """One asset's account by hand, which the product shares; signals are given by bar.

    The finer bars are half days.
    """
    (account,) = check_batch(
        hand_panel({"A": bars}, name),
        _events([signals], [len(bars)]),
        config,
        None if rates is None else {"A": rates},
        None if finer is None else hand_panel({"A": finer}, "12H"),
    )
    return account


def trade_book(
    frames: Mapping[str, pd.DataFrame],
    signals: Mapping[str, Mapping[int, int]],
    config: SimulationConfig,
) -> Account:
    """A book by hand, which the product shares; signals are given by asset and bar."""
    per_asset = [signals.get(name, {}) for name in frames]
    lengths = [len(bars) for bars in frames.values()]
    (account,) = check_book(hand_panel(frames), _events(per_asset, lengths), config)
    return account


def _events(signals: list[Mapping[int, int]], lengths: list[int]) -> np.ndarray:
    events = np.zeros((1, sum(lengths)), np.uint8)
    first = 0
    for of_asset, length in zip(signals, lengths, strict=True):
        for bar, bits in of_asset.items():
            events[0, first + bar] = bits
        first += length
    return events
