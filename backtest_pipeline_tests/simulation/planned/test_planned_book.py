"""Books that follow plans are what the slow simulator makes of the same plans."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.plan_sequence import in_order
from backtest_pipeline.simulation import engine
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.planned.planned_book import PlannedResult, simulate_planned
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.simulation.by_hand import (
    assert_money,
    assert_trades,
    hand_asset,
    hand_rules,
)
from backtest_pipeline_tests.simulation.planned.random_plans import (
    market,
    plain_rules,
    random_plans,
)
from backtest_pipeline_tests.simulation.planned.reference_plans import PlannedAccount
from backtest_pipeline_tests.simulation.reference import walk

EXAMPLES = int(os.environ.get("BACKTEST_EXAMPLES", "20")) * 4
"""Markets, of one to four plans each; `make fuzz` goes through 2,000."""
seeds = st.integers(0, 2**32 - 1)
configs = st.builds(
    SimulationConfig,
    costs=st.builds(
        CostModel,
        fee_bps=st.sampled_from([0.0, 10.0, 123.4]),
        slippage_bps=st.sampled_from([0.0, 5.0, 77.7]),
        funding_bps_day=st.sampled_from([0.0, 3.0, -40.0]),
    ),
    max_leverage=st.sampled_from([1.0, 1.0, 2.5]),
    lot_size=st.sampled_from([0.0, 0.7]),
    min_notional=st.sampled_from([0.0, 4000.0]),
    delay_bars=st.sampled_from([0, 0, 0, 1, 2]),
)


def by_hand(panel: Panel, plans: list[Plan], config: SimulationConfig) -> PlannedAccount:
    """The account that the slow simulator makes."""
    assets = [
        hand_asset(panel, name, config, None, None, len(panel.assets)) for name in panel.assets
    ]
    assets = [replace(asset, signals=[0] * len(asset.bars)) for asset in assets]
    ordered = list(in_order(plans))
    fractions = {plan.plan_id: getattr(plan.sized(), "fraction", np.nan) for plan in ordered}
    account = PlannedAccount(
        list(panel.assets),
        assets,
        hand_rules(config),
        ordered,
        plain_rules(panel, [asset.bars for asset in assets]),
        fractions,
    )
    walk(account)
    return account


def assert_is(result: PlannedResult, hand: PlannedAccount) -> None:
    """The result is the account by hand: trades, blocks and equity."""
    book, panel = result.book, result.book.panel
    assert_money(book.equity[0], hand.equity, hand, "equity")
    assert book.liquidated[0] == hand.ruined
    ids = [trigger.id for trigger in result.triggers]
    for asset in range(len(panel.assets)):
        assert_trades(panel, book.trades, asset, hand, asset)
        ours = np.flatnonzero(book.trades.column == asset)
        sources = [hand.sources[id(trade)] for trade in hand.trades[asset]]
        assert [ids[i] for i in result.trade_trigger[ours]] == [entered for entered, _ in sources]
        by_signal = [trade.reason in ("signal", "reversal") for trade in hand.trades[asset]]
        assert ["" if i < 0 else ids[i] for i in result.exit_trigger[ours]] == [
            left if signal else "" for (_, left), signal in zip(sources, by_signal, strict=True)
        ]
    assert_blocks(result, hand)
    assert dict(zip(ids, result.triggered.tolist(), strict=True)) == {
        name: hand.triggered.get(name, 0) for name in ids
    }
    assert result.entered.tolist() == [hand.entered.get(name, 0) for name in ids]
    assert (result.exits_triggered, result.exits) == (hand.exits_triggered, hand.exits)


def assert_blocks(result: PlannedResult, hand: PlannedAccount) -> None:
    """What was blocked is what was by hand, each for its cause, with its numbers."""
    blocks, panel = result.blocks, result.book.panel
    ids = [trigger.id for trigger in result.triggers]
    bars = blocks.row - panel.offsets[blocks.asset]
    keys = zip(
        blocks.asset.tolist(),
        bars.tolist(),
        [ids[i] for i in blocks.trigger],
        blocks.side.tolist(),
        blocks.cause.tolist(),
        blocks.is_exit.tolist(),
        strict=True,
    )
    numbers = np.column_stack([blocks.size, blocks.value, blocks.bound])
    ours = sorted((*key, position) for position, key in enumerate(keys))
    theirs = sorted(
        (b.asset, b.bar, b.trigger, b.side, getattr(engine, b.cause), b.is_exit, position)
        for position, b in enumerate(hand.blocks)
    )
    assert [key[:-1] for key in ours] == [key[:-1] for key in theirs]
    by_hand_numbers = np.array([(b.units, b.value, b.bound) for b in hand.blocks]).reshape(-1, 3)
    np.testing.assert_allclose(
        numbers[[key[-1] for key in ours]],
        by_hand_numbers[[key[-1] for key in theirs]],
        rtol=1e-7,
        atol=1e-9,
    )


@settings(max_examples=EXAMPLES)
@given(seeds, st.sampled_from([0.01, 0.05, 0.3]), st.sampled_from(["1D", "4H"]), configs)
def test_plans_are_followed_as_by_hand(
    seed: int, volatility: float, name: str, config: SimulationConfig
) -> None:
    rng = np.random.default_rng(seed)
    panel = market(rng, [30, 0, 22, 35], volatility, name)
    plans = random_plans(rng, panel, int(rng.integers(1, 5)))
    result = simulate_planned(panel, plans, config)
    assert_is(result, by_hand(panel, plans, config))
    assert_conserved(result)


def assert_conserved(result: PlannedResult) -> None:
    """Whatever was triggered was taken or blocked, for each trigger and in all."""
    blocks = result.blocks
    blocked = np.bincount(blocks.trigger[~blocks.is_exit], minlength=len(result.triggers))
    assert (result.entered + blocked).tolist() == result.triggered.tolist()
    assert result.exits + np.count_nonzero(blocks.is_exit) == result.exits_triggered
    assert Counter(blocks.reasons) == result.blocks.counts()
