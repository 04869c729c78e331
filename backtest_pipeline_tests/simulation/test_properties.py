"""What holds for every market and every signal."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.blocked_entries import Refusals
from backtest_pipeline.simulation.book import simulate_book
from backtest_pipeline.simulation.columns import with_config_columns
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.simulation.pandas_objects.single import simulate
from backtest_pipeline.simulation.sizing import FixedFractional
from backtest_pipeline.simulation.stops import StopRules
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline_tests.simulation.assumptions import (
    configs,
    seeds,
    stop_rules,
    volatilities,
)
from backtest_pipeline_tests.simulation.markets import (
    bars_of,
    flags,
    random_events,
    random_market,
    random_rates,
)

RUNS, LENGTHS = 3, (40, 0, 25, 60)
few = settings(max_examples=25, deadline=None)
some = settings(max_examples=60, deadline=None)


def case(seed: int, volatility: float) -> tuple[Panel, np.ndarray]:
    panel, events, _ = full_case(seed, volatility)
    return panel, events


def full_case(seed: int, volatility: float) -> tuple[Panel, np.ndarray, dict[str, Any]]:
    """A market, signals, and what may be given beside them: rates and finer bars."""
    rng = np.random.default_rng(seed)
    panel, finer = random_market(rng, LENGTHS, volatility, holes=0.1)
    rates = FundingRates.of(random_rates(rng, panel, 0.002))
    return panel, random_events(rng, RUNS, panel), {"funding": rates, "finer": finer}


def rows_of(panel: Panel, asset: int) -> slice:
    return slice(int(panel.offsets[asset]), int(panel.offsets[asset + 1]))


def assert_same_trades(ours: Trades, theirs: Trades) -> None:
    for field in fields(Trades):
        if field.name != "column":
            left, right = getattr(ours, field.name), getattr(theirs, field.name)
            assert np.array_equal(left, right), field.name


def assert_same_refusals(
    ours: Refusals, rows: np.ndarray, theirs: Refusals, other_rows: np.ndarray
) -> None:
    """The refusals in these rows of one log are those in the other rows of the other."""
    for field in fields(Refusals):
        if field.name != "column":
            left, right = getattr(ours, field.name)[rows], getattr(theirs, field.name)[other_rows]
            assert np.array_equal(left, right, equal_nan=True), field.name


def assert_same_column(
    left: BatchResult, run: int, asset: int, right: BatchResult, right_run: int, right_asset: int
) -> None:
    ours, theirs = rows_of(left.panel, asset), rows_of(right.panel, right_asset)
    column = run * len(left.panel.assets) + asset
    right_column = right_run * len(right.panel.assets) + right_asset
    assert np.array_equal(left.equity[run, ours], right.equity[right_run, theirs])
    assert np.array_equal(left.benchmark[ours], right.benchmark[theirs])
    assert_same_trades(
        left.trades.take(left.trades.column == column),
        right.trades.take(right.trades.column == right_column),
    )
    for name, values in left.metrics.items():
        other = right.metrics[name]
        assert np.array_equal(values[[column]], other[[right_column]], equal_nan=True), name
    assert left.pending[column] == right.pending[right_column]
    assert left.liquidated[column] == right.liquidated[right_column]
    assert left.refused[column] == right.refused[right_column]
    assert_same_refusals(
        left.refusals,
        left.refusals.column == column,
        right.refusals,
        right.refusals.column == right_column,
    )


@some
@given(seed=seeds, volatility=volatilities, config=configs())
def test_a_column_of_a_batch_is_bit_for_bit_the_run_alone(
    seed: int, volatility: float, config: SimulationConfig
) -> None:
    panel, events, beside = full_case(seed, volatility)
    batch = simulate_batch(with_config_columns(panel, config), events, config, **beside)
    for asset, name in enumerate(panel.assets):
        alone_panel = with_config_columns(panel.select([name]), config)
        for run in range(RUNS):
            alone_events = events[run : run + 1, rows_of(panel, asset)]
            alone = simulate_batch(alone_panel, alone_events, config, **beside)
            assert_same_column(batch, run, asset, alone, 0, 0)


@some
@given(seed=seeds, volatility=volatilities, config=configs())
def test_the_order_of_assets_and_runs_does_not_matter(
    seed: int, volatility: float, config: SimulationConfig
) -> None:
    panel, events, beside = full_case(seed, volatility)
    panel = with_config_columns(panel, config)
    batch = simulate_batch(panel, events, config, **beside)
    shuffle = np.random.default_rng(seed)
    assets, runs = shuffle.permutation(len(LENGTHS)), shuffle.permutation(RUNS)
    shuffled_panel = panel.select([panel.assets[a] for a in assets])
    rows = np.concatenate([np.arange(len(panel))[rows_of(panel, a)] for a in assets])
    shuffled = simulate_batch(shuffled_panel, events[runs][:, rows], config, **beside)
    for new_run, run in enumerate(runs.tolist()):
        for new_asset, asset in enumerate(assets.tolist()):
            assert_same_column(batch, run, asset, shuffled, new_run, new_asset)


@some
@given(seed=seeds, volatility=volatilities, config=configs(), cut=st.integers(1, 59))
def test_the_future_changes_nothing_before_it(
    seed: int, volatility: float, config: SimulationConfig, cut: int
) -> None:
    panel, events, beside = full_case(seed, volatility)
    known = np.concatenate([np.arange(n) < cut for n in panel.lengths])
    whole = simulate_batch(with_config_columns(panel, config), events, config, **beside)
    cut_panel = with_config_columns(panel.take(known), config)
    past = simulate_batch(cut_panel, events[:, known], config, **beside)
    assert np.array_equal(whole.equity[:, known], past.equity)
    assert np.array_equal(whole.benchmark[known], past.benchmark)
    assert np.all(past.refused <= whole.refused)
    ends = past.panel.offsets[1:] - 1
    last_known = past.panel.ts[ends][past.trades.column % len(LENGTHS)]
    assert np.all(past.trades.exit_ts <= last_known)
    until = past.panel.ts[ends][whole.refusals.column % len(LENGTHS)]
    assert_same_refusals(
        whole.refusals, whole.refusals.ts <= until, past.refusals, np.arange(len(past.refusals))
    )
    assert_same_past(whole.trades, past.trades)


@some
@given(seed=seeds, volatility=volatilities, config=configs(), cut=st.integers(1, 70))
def test_the_future_changes_nothing_of_a_book_before_it(
    seed: int, volatility: float, config: SimulationConfig, cut: int
) -> None:
    panel, events, beside = full_case(seed, volatility)
    known = panel.ts <= np.unique(panel.ts)[:cut][-1]
    whole = simulate_book(with_config_columns(panel, config), events, config, **beside)
    cut_panel = with_config_columns(panel.take(known), config)
    past = simulate_book(cut_panel, events[:, known], config, **beside)
    for name in ("equity", "gross", "net"):
        before = getattr(whole, name)[:, : len(past.ts)]
        assert np.array_equal(before, getattr(past, name)), name
    assert_same_past(whole.trades, past.trades)


def assert_same_past(whole: Trades, past: Trades) -> None:
    """Trades that had ended are the same; one still open has the entry that it will have had."""
    closed, still_open = past.take(~past.is_open), past.take(past.is_open)
    same = whole.take(np.isin(_keys(whole), _keys(closed)))
    assert np.array_equal(same.column, closed.column)
    assert_same_trades(same, closed)
    later = whole.take(np.isin(_keys(whole), _keys(still_open)))
    for name in ("entry_ts", "entry_price", "side", "size"):
        assert np.array_equal(getattr(later, name), getattr(still_open, name)), name


def _keys(trades: Trades) -> np.ndarray:
    return trades.column * 1_000_000 + trades.number


one_sided = st.sampled_from([Direction.LONG, Direction.SHORT])
fractions = st.sampled_from([1.0, 0.6])
cheap_costs = st.builds(CostModel, st.floats(0, 200), st.floats(0, 200))


@some
@given(
    seed=seeds,
    volatility=volatilities,
    direction=one_sided,
    fraction=fractions,
    cheap=cheap_costs,
    dearer=st.tuples(st.floats(0, 500), st.floats(0, 500)),
    max_bars=st.sampled_from([None, 3]),
)
def test_higher_costs_never_end_with_more(
    seed: int,
    volatility: float,
    direction: Direction,
    fraction: float,
    cheap: CostModel,
    dearer: tuple[float, float],
    max_bars: int | None,
) -> None:
    # One side only: then the account is flat between trades, and each trade multiplies the
    # equity by a factor that falls with the costs, being a long's
    #     1 + w (r (1 - s) (1 - f) - (1 + s) (1 + f)),  w = min(fraction, 1 / ((1 + s) (1 + f)))
    # of the price relative r (to a close before the exit: r alone), which is
    # r (1 - s) (1 - f) / ((1 + s) (1 + f)) where the cash is short; and a short's
    #     1 + fraction ((1 - s) (1 - f) - r (1 + s) (1 + f)).
    # A reversal pays for closing a position whose size was decided at an earlier, costlier
    # equity, so that no such law holds for it.
    panel, events = case(seed, volatility)
    config = SimulationConfig(
        cheap, FixedFractional(fraction), direction, stops=StopRules(max_bars=max_bars)
    )
    costs = CostModel(cheap.fee_bps + dearer[0], cheap.slippage_bps + dearer[1])
    less = simulate_batch(panel, events, config).equity
    more = simulate_batch(panel, events, replace(config, costs=costs)).equity
    assert np.all(more <= less * (1 + 1e-9))


@some
@given(
    seed=seeds,
    volatility=volatilities,
    direction=one_sided,
    fraction=fractions,
    cheap=cheap_costs,
    dearer=st.floats(0, 500),
    stops=stop_rules,
)
def test_a_higher_fee_never_ends_with_more_whatever_the_stops(
    seed: int,
    volatility: float,
    direction: Direction,
    fraction: float,
    cheap: CostModel,
    dearer: float,
    stops: StopRules,
) -> None:
    # A fee moves no fill and so no level: the same trades with smaller factors. Slippage moves
    # the levels, and a stop that is missed by a hair may have been the better one to miss.
    panel, events = case(seed, volatility)
    config = SimulationConfig(cheap, FixedFractional(fraction), direction, stops=stops)
    panel = with_config_columns(panel, config)
    costs = CostModel(cheap.fee_bps + dearer, cheap.slippage_bps)
    less = simulate_batch(panel, events, config).equity
    more = simulate_batch(panel, events, replace(config, costs=costs)).equity
    assert np.all(more <= less * (1 + 1e-9))


@some
@given(seed=seeds, volatility=volatilities, config=configs())
def test_what_the_trades_made_is_what_the_account_gained(
    seed: int, volatility: float, config: SimulationConfig
) -> None:
    panel, events, beside = full_case(seed, volatility)
    result = simulate_batch(with_config_columns(panel, config), events, config, **beside)
    assert_pnl_is_gross_less_costs(result.trades)
    for column in range(RUNS * len(LENGTHS)):
        run, asset = divmod(column, len(LENGTHS))
        equity = result.equity[run, rows_of(panel, asset)]
        if len(equity) == 0:
            continue
        trades = result.trades.take(result.trades.column == column)
        assert_gained(config, equity, trades)
        assert np.sum(trades.bars_held) == round(result.metrics["exposure"][column] * len(equity))
        assert np.all(trades.entry_ts[1:] >= trades.exit_ts[:-1])
        assert not np.any(trades.is_open[:-1])
        assert result.liquidated[column] == (equity[-1] == 0.0)


@some
@given(seed=seeds, volatility=volatilities, config=configs())
def test_what_the_trades_made_is_what_the_book_gained(
    seed: int, volatility: float, config: SimulationConfig
) -> None:
    panel, events, beside = full_case(seed, volatility)
    result = simulate_book(with_config_columns(panel, config), events, config, **beside)
    assert_pnl_is_gross_less_costs(result.trades)
    assert np.all(np.abs(result.net) <= result.gross * (1 + 1e-12))
    for run in range(RUNS):
        trades = result.trades.take(result.trades.column // len(LENGTHS) == run)
        assert_gained(config, result.equity[run], trades)


def assert_pnl_is_gross_less_costs(trades: Trades) -> None:
    gross = trades.side * trades.size * (trades.exit_price - trades.entry_price)
    np.testing.assert_allclose(
        trades.pnl,
        gross - trades.fees - trades.funding,
        rtol=1e-12,
        atol=1e-12 * float(np.max(trades.size * trades.entry_price, initial=1.0)),
    )


def assert_gained(config: SimulationConfig, equity: np.ndarray, trades: Trades) -> None:
    """The account's last equity is its first and what the trades made; it is never negative."""
    scale = max(float(np.max(equity)), float(np.max(trades.size * trades.entry_price, initial=0)))
    assert config.initial_cash + float(np.sum(trades.pnl)) == pytest.approx(
        equity[-1], rel=1e-12, abs=1e-11 * max(scale, config.initial_cash)
    )
    assert np.all(equity >= 0)


@few
@given(seed=seeds, volatility=volatilities)
def test_no_costs_cost_exactly_nothing(seed: int, volatility: float) -> None:
    panel, events = case(seed, volatility)
    result = simulate_batch(panel, events, SimulationConfig(CostModel(0.0, 0.0)))
    assert not np.any(result.trades.fees)
    assert not np.any(result.trades.slippage_cost)
    assert not np.any(result.metrics["fees_paid"])
    assert not np.any(result.metrics["slippage_cost"])


@few
@given(seed=seeds, volatility=volatilities)
def test_the_unit_of_the_price_does_not_matter(seed: int, volatility: float) -> None:
    panel, events = case(seed, volatility)
    dear = panel.with_columns({name: column * 1024.0 for name, column in panel.columns.items()})
    plain = simulate_batch(panel, events, SimulationConfig())
    scaled = simulate_batch(dear, events, SimulationConfig())
    assert np.array_equal(plain.equity, scaled.equity)


@few
@given(seed=seeds, direction=st.sampled_from([Direction.LONG, Direction.SHORT]))
def test_the_other_sides_signals_are_not_seen(seed: int, direction: Direction) -> None:
    panel, events = case(seed, 0.02)
    own = LONG_ENTRY | LONG_EXIT if direction is Direction.LONG else SHORT_ENTRY | SHORT_EXIT
    config = SimulationConfig(direction=direction)
    seen = simulate_batch(panel, events & np.uint8(own), config)
    assert np.array_equal(seen.equity, simulate_batch(panel, events, config).equity)


def test_a_signal_fills_at_the_next_open_and_the_last_one_stays_pending() -> None:
    bars = bars_of([100, 200, 300, 400], closes=[110, 210, 310, 410])
    result = simulate(bars, flags(bars, 1), flags(bars, 3), costs=CostModel(0.0, 0.0))
    trade = result.trades.iloc[0].to_dict()
    assert trade["entry_ts"] == bars.index[2]
    assert trade["entry_price"] == 300.0
    assert trade["is_open"]
    assert trade["exit_reason"] == "end_of_data"
    assert trade["exit_price"] == 410.0
    assert result.pending == "flat"
    asked = simulate(bars, flags(bars, 3), flags(bars), costs=CostModel(0.0, 0.0))
    assert asked.pending == "long"
    assert asked.trades.empty


def test_a_short_dies_within_the_bar_that_eats_its_equity_and_stays_dead() -> None:
    bars = bars_of([100, 100, 150, 90, 90], highs=[100, 100, 201, 90, 90])
    never = flags(bars)
    result = simulate(bars, never, never, flags(bars, 0, 3), flags(bars, 2, 4))
    assert result.equity.tolist()[2:] == [0.0, 0.0, 0.0]
    assert result.trades["exit_reason"].tolist() == ["liquidation"]
    assert sum(result.trades["pnl"].tolist()) == pytest.approx(-10_000, rel=1e-12)
    assert result.trades["exit_ts"].iloc[0] == bars.index[2]
    assert result.pending is None


@pytest.mark.parametrize("then_long", [False, True])
def test_a_cover_that_the_cash_does_not_pay_for_is_a_liquidation(then_long: bool) -> None:
    # 100 units sold at 99 leave 19,900; buying them back at 198 and 1 % slippage costs 19,998.
    bars = bars_of([100, 100, 150, 198, 100, 100])
    long = flags(bars, 2) if then_long else flags(bars)
    result = simulate(
        bars, long, flags(bars), flags(bars, 0), flags(bars, 2), costs=CostModel(0.0, 100.0)
    )
    assert result.equity.tolist()[3:] == [0.0, 0.0, 0.0]
    assert result.trades["exit_reason"].tolist() == ["liquidation"]
    assert sum(result.trades["pnl"].tolist()) == pytest.approx(-10_000, rel=1e-12)


def test_a_gap_through_ruin_comes_before_the_exit_that_is_due_at_that_open() -> None:
    bars = bars_of([100, 100, 150, 500, 100])
    never = flags(bars)
    result = simulate(bars, never, never, flags(bars, 0), flags(bars, 2))
    assert result.trades["exit_reason"].tolist() == ["liquidation"]
    assert result.equity.iloc[-1] == 0.0


def test_an_entry_after_a_hole_is_flagged_and_fills_at_that_bars_open() -> None:
    bars = bars_of([100, 101, 102, 103, 104, 105])
    bars = bars.drop(bars.index[2])
    result = simulate(bars, flags(bars, 1, 3), flags(bars, 2), costs=CostModel(0.0, 0.0))
    assert result.trades["entry_price"].tolist() == [103.0, 105.0]
    assert result.trades["entry_after_gap"].tolist() == [True, False]
    assert not result.trades[["exit_after_gap", "held_across_gap"]].to_numpy().any()


def test_a_trade_that_is_held_or_left_across_a_hole_is_flagged() -> None:
    bars = bars_of([100.0] * 14)
    bars = bars.drop(bars.index[[3, 8]])  # rows 3 and 7 follow the holes
    entries, exits = flags(bars, 0, 3, 7, 9), flags(bars, 2, 6, 8)
    trades = simulate(bars, entries, exits, costs=CostModel(0.0, 0.0)).trades
    # Left at the open after the first hole, and after the second; without one; open at the end.
    assert trades["exit_after_gap"].tolist() == [True, True, False, False]
    assert trades["held_across_gap"].tolist() == [True, True, False, False]

    stopped = simulate(
        bars_with_a_fall_after_a_hole(), flags(bars, 0), flags(bars), stops=StopRules(stop_loss=0.1)
    ).trades
    assert stopped["exit_reason"].tolist() == ["stop_loss"]
    assert stopped[["exit_after_gap", "held_across_gap"]].to_numpy().tolist() == [[True, True]]

    held = simulate(bars, flags(bars, 0), flags(bars)).trades
    assert held[["exit_after_gap", "held_across_gap"]].to_numpy().tolist() == [[False, True]]


def bars_with_a_fall_after_a_hole() -> pd.DataFrame:
    bars = bars_of([100.0] * 3 + [80.0] * 11)
    return bars.drop(bars.index[[3, 8]])


def test_reversals_split_the_fee_of_their_one_fill() -> None:
    bars = bars_of([100.0] * 6)
    result = simulate(
        bars, flags(bars, 0), flags(bars), flags(bars, 2), flags(bars, 4), costs=CostModel(100, 0)
    )
    assert result.trades["exit_reason"].tolist() == ["reversal", "signal"]
    long, short = result.trades["size"]
    assert result.trades["fees"].tolist() == pytest.approx([2 * long, 2 * short], rel=1e-12)


def test_a_few_billionths_of_a_unit_are_traded_like_any_other_size() -> None:
    bars = bars_of([1e9, 1e9, 2e9, 3e9, 3e9])
    result = simulate(
        bars, flags(bars, 0), flags(bars, 2), costs=CostModel(0.0, 0.0), initial_cash=1.0
    )
    assert result.equity.tolist() == pytest.approx([1.0, 1.0, 2.0, 3.0, 3.0], rel=1e-12)
