"""What holds for every market and every signal."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.simulation.single import simulate
from backtest_pipeline.simulation.sizing import FixedFractional
from backtest_pipeline.simulation.stops import StopRules
from backtest_pipeline.simulation.trades import EXIT_REASONS, Trades
from backtest_pipeline_tests.simulation.markets import (
    bars_of,
    flags,
    random_events,
    random_panel,
)

RUNS, LENGTHS = 3, (40, 0, 25, 60)
seeds = st.integers(0, 2**32 - 1)
volatilities = st.sampled_from([0.01, 0.3])
few = settings(max_examples=25, deadline=None)


def case(seed: int, volatility: float) -> tuple[Panel, np.ndarray]:
    rng = np.random.default_rng(seed)
    panel = random_panel(rng, LENGTHS, volatility, holes=0.1)
    return panel, random_events(rng, RUNS, panel)


def rows_of(panel: Panel, asset: int) -> slice:
    return slice(int(panel.offsets[asset]), int(panel.offsets[asset + 1]))


def assert_same_trades(ours: Trades, theirs: Trades) -> None:
    for field in fields(Trades):
        if field.name != "column":
            left, right = getattr(ours, field.name), getattr(theirs, field.name)
            assert np.array_equal(left, right), field.name


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


@few
@given(seed=seeds, volatility=volatilities)
def test_a_column_of_a_batch_is_bit_for_bit_the_run_alone(seed: int, volatility: float) -> None:
    panel, events = case(seed, volatility)
    batch = simulate_batch(panel, events, SimulationConfig())
    for asset, name in enumerate(panel.assets):
        alone_panel = panel.select([name])
        for run in range(RUNS):
            alone_events = events[run : run + 1, rows_of(panel, asset)]
            alone = simulate_batch(alone_panel, alone_events, SimulationConfig())
            assert_same_column(batch, run, asset, alone, 0, 0)


@few
@given(seed=seeds, volatility=volatilities)
def test_the_order_of_assets_and_runs_does_not_matter(seed: int, volatility: float) -> None:
    panel, events = case(seed, volatility)
    batch = simulate_batch(panel, events, SimulationConfig())
    shuffle = np.random.default_rng(seed)
    assets, runs = shuffle.permutation(len(LENGTHS)), shuffle.permutation(RUNS)
    shuffled_panel = panel.select([panel.assets[a] for a in assets])
    rows = np.concatenate([np.arange(len(panel))[rows_of(panel, a)] for a in assets])
    shuffled = simulate_batch(shuffled_panel, events[runs][:, rows], SimulationConfig())
    for new_run, run in enumerate(runs.tolist()):
        for new_asset, asset in enumerate(assets.tolist()):
            assert_same_column(batch, run, asset, shuffled, new_run, new_asset)


@few
@given(seed=seeds, volatility=volatilities, cut=st.integers(1, 59))
def test_the_future_changes_nothing_before_it(seed: int, volatility: float, cut: int) -> None:
    panel, events = case(seed, volatility)
    known = np.concatenate([np.arange(n) < cut for n in LENGTHS])
    whole = simulate_batch(panel, events, SimulationConfig())
    past = simulate_batch(panel.take(known), events[:, known], SimulationConfig())
    assert np.array_equal(whole.equity[:, known], past.equity)
    assert np.array_equal(whole.benchmark[known], past.benchmark)
    ends = past.panel.offsets[1:] - 1
    last_known = past.panel.ts[ends][past.trades.column % len(LENGTHS)]
    assert np.all(past.trades.exit_ts <= last_known)
    final = ~past.trades.is_open
    closed = past.trades.take(final)
    same_trades = whole.trades.take(
        np.isin(_keys(whole.trades), _keys(closed)),
    )
    assert np.array_equal(same_trades.column, closed.column)
    assert_same_trades(same_trades, closed)
    # A trade that is still open has no other entry than it will have had.
    still_open = past.trades.take(~final)
    later = whole.trades.take(np.isin(_keys(whole.trades), _keys(still_open)))
    for name in ("entry_ts", "entry_price", "side", "size"):
        assert np.array_equal(getattr(later, name), getattr(still_open, name)), name


def _keys(trades: Trades) -> np.ndarray:
    return trades.column * 1_000_000 + trades.number


@few
@given(
    seed=seeds,
    volatility=volatilities,
    direction=st.sampled_from([Direction.LONG, Direction.SHORT]),
    fraction=st.sampled_from([1.0, 0.6]),
    cheap=st.tuples(st.floats(0, 200), st.floats(0, 200)),
    dearer=st.tuples(st.floats(0, 500), st.floats(0, 500)),
)
def test_higher_costs_never_end_with_more(
    seed: int,
    volatility: float,
    direction: Direction,
    fraction: float,
    cheap: tuple[float, float],
    dearer: tuple[float, float],
) -> None:
    # One side only: then the account is flat between trades, and each trade multiplies the
    # equity by a factor that falls with the costs. A reversal pays for closing a position whose
    # size was decided at an earlier, costlier equity, so that no such law holds for it.
    panel, events = case(seed, volatility)
    config = SimulationConfig(CostModel(*cheap), FixedFractional(fraction), direction)
    costs = CostModel(cheap[0] + dearer[0], cheap[1] + dearer[1])
    less = simulate_batch(panel, events, config).equity
    more = simulate_batch(panel, events, replace(config, costs=costs)).equity
    assert np.all(more <= less * (1 + 1e-9))


@few
@given(seed=seeds, volatility=volatilities, direction=st.sampled_from(list(Direction)))
def test_what_the_trades_made_is_what_the_account_gained(
    seed: int, volatility: float, direction: Direction
) -> None:
    panel, events = case(seed, volatility)
    config = SimulationConfig(CostModel(20.0, 10.0), direction=direction)
    result = simulate_batch(panel, events, config)
    for column in range(RUNS * len(LENGTHS)):
        run, asset = divmod(column, len(LENGTHS))
        if LENGTHS[asset] == 0:
            continue
        equity = result.equity[run, rows_of(panel, asset)]
        trades = result.trades.take(result.trades.column == column)
        gained = float(np.sum(trades.pnl))
        assert config.initial_cash + gained == pytest.approx(
            equity[-1], rel=1e-12, abs=1e-12 * float(np.max(equity))
        )
        assert np.sum(trades.bars_held) == round(result.metrics["exposure"][column] * len(equity))
        assert np.all(trades.entry_ts[1:] >= trades.exit_ts[:-1])
        assert np.all(equity >= 0)
        assert not np.any(trades.is_open[:-1])
        assert result.liquidated[column] == (equity[-1] == 0.0)


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


def test_every_reason_occurs_in_a_wild_market() -> None:
    panel, events = case(3, 0.3)
    stops = StopRules(stop_loss=0.4, take_profit=0.5, trailing=0.45, max_bars=4)
    reasons = [
        simulate_batch(panel, events, SimulationConfig(stops=rules)).trades.exit_reason
        for rules in (StopRules(), stops)
    ]
    assert set(np.concatenate(reasons).tolist()) == set(range(len(EXIT_REASONS)))
