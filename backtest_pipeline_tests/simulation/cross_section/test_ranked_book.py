"""A book that ranks its assets, bar by bar against a slow and obvious one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backtest_pipeline.market.errors import BadSymbols, InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.cross_section.ranked_book import RankedBook, simulate_ranked
from backtest_pipeline.simulation.cross_section.targets import require_weights
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.simulation.cross_section.reference_ranked import (
    reference_book,
    universe,
)

CONFIG = SimulationConfig(costs=CostModel(fee_bps=10, slippage_bps=5))
MOMENTUM = CrossSection("momentum", score="close / shift(close, 5) - 1", count=3)
RULES = {
    "long": MOMENTUM,
    "long_short": replace(MOMENTUM, side="long_short"),
    "by_score": replace(MOMENTUM, side="long_short", weights="score", count=None, quantiles=3),
    "inverse_volatility": replace(
        MOMENTUM, weights="inverse_volatility", volatility="std(close, 5, ddof=1) / close"
    ),
    "daily": replace(MOMENTUM, rebalance=1, universe="volume > 30000", delisting_loss=0.4),
    "monthly": replace(MOMENTUM, rebalance="monthly", min_history=20, delisted_after=2),
}


def booked(rule: CrossSection, panel: Panel, config: SimulationConfig = CONFIG) -> RankedBook:
    return simulate_ranked(rule, panel, config, "all")


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_bar_equals_the_reference(name: str, seed: int) -> None:
    panel, rule = universe(9, 150, seed, holes=0.15, ending=3), RULES[name]
    ours = booked(rule, panel)
    stamps = ours.scores.ts.tolist()
    targets = {
        stamps[step]: dict(zip(ours.assets, weights.tolist(), strict=True))
        for step, weights in zip(ours.targets.step, ours.targets.weight, strict=True)
    }
    theirs = reference_book(
        panel,
        targets,
        cash=CONFIG.initial_cash,
        fee=0.001,
        slippage=0.0005,
        delisted_after=rule.delisted_after,
        delisting_loss=rule.delisting_loss,
    )
    assert stamps == list(theirs.equity)
    equity = np.array(list(theirs.equity.values()))
    np.testing.assert_allclose(ours.rebalanced.equity, equity, rtol=1e-11)
    for n, ts in enumerate(stamps):
        weights = [theirs.weights[ts].get(asset, 0.0) for asset in ours.assets]
        np.testing.assert_allclose(ours.rebalanced.weight[n], weights, atol=1e-11)
        assert ours.rebalanced.turnover[n] == pytest.approx(theirs.turnover.get(ts, 0.0), abs=1e-11)
    assert ours.rebalanced.n_delisted == len(theirs.delisted)
    trades = ours.account.trades
    assert CONFIG.initial_cash + trades.pnl.sum() == pytest.approx(equity[-1], rel=1e-11)


def slow_weights(rule: CrossSection, scores: dict[str, float]) -> dict[str, float]:
    """Of `long` and `long_short` with equal weights, from scores by asset."""
    known = {a: s for a, s in scores.items() if np.isfinite(s)}
    if len(known) < 2 or len(set(known.values())) == 1:
        return {}
    ranked = sorted(known, key=lambda a: (-known[a], a))
    is_both = rule.side == "long_short"
    n = min(rule.count or 0, len(ranked) // 2 if is_both else len(ranked))
    gross = 0.5 if is_both else 1.0
    held = dict.fromkeys(ranked[:n], gross / n)
    return held | (dict.fromkeys(ranked[-n:], -gross / n) if is_both else {})


@pytest.mark.parametrize("side", ["long", "long_short"])
def test_the_highest_scores_of_that_instant_are_held(side: str) -> None:
    panel, rule = universe(8, 80, 4, holes=0.1, ending=2), replace(MOMENTUM, side=side)
    found = booked(rule, panel)
    at = {}
    for asset in panel.assets:
        rows, close = panel.rows_of(asset), panel.frame(asset)["close"]
        score = (close / close.shift(5) - 1).to_numpy()
        at[asset] = dict(zip(panel.ts[rows].tolist(), score.tolist(), strict=True))
    for step, weights in zip(found.targets.step, found.targets.weight, strict=True):
        ts = int(found.scores.ts[step])
        now = {a: at[a].get(ts, np.nan) for a in panel.assets}
        expected = slow_weights(rule, now)
        np.testing.assert_allclose(
            weights, [expected.get(a, 0.0) for a in found.assets], atol=1e-15
        )


def test_weeks_are_decided_on_sunday_and_traded_on_monday() -> None:
    found = booked(MOMENTUM, universe(6, 60, 1))
    decided = found.scores.ts[found.targets.step].view("M8[us]").astype("M8[D]")
    assert {(day.astype(int) - 4) % 7 for day in decided} == {6}
    entries = found.account.trades.entry_ts.view("M8[us]").astype("M8[D]")
    assert {(day.astype(int) - 4) % 7 for day in entries} == {0}


def test_gross_is_one_after_each_rebalance() -> None:
    found = booked(RULES["by_score"], universe(9, 100, 2))
    traded = found.targets.weight[found.targets.reason == 0]
    np.testing.assert_allclose(np.abs(traded).sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(traded.sum(axis=1), 0.0, atol=1e-14)


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_assets_plays_no_part(name: str) -> None:
    panel = universe(9, 120, 3, holes=0.1, ending=2)
    shuffled = panel.select([panel.assets[i] for i in np.random.default_rng(0).permutation(9)])
    one, other = booked(RULES[name], panel), booked(RULES[name], shuffled)
    np.testing.assert_array_equal(one.rebalanced.equity, other.rebalanced.equity)
    assert one.symbols == other.symbols


@pytest.mark.parametrize("name", RULES)
def test_later_bars_change_nothing_before(name: str) -> None:
    panel = universe(9, 120, 5, holes=0.1, ending=3)
    last = np.unique(panel.ts)[79]
    whole, cut = booked(RULES[name], panel), booked(RULES[name], panel.take(panel.ts <= last))
    n = len(cut.scores.ts)
    there = np.isin(whole.assets, cut.assets)
    np.testing.assert_array_equal(whole.rebalanced.equity[:n], cut.rebalanced.equity)
    np.testing.assert_array_equal(whole.rebalanced.weight[:n, there], cut.rebalanced.weight)
    np.testing.assert_array_equal(whole.scores.score[:n, there], cut.scores.score)


def test_a_delisting_within_a_holding_period_has_the_declared_return() -> None:
    panel = universe(4, 60, 8, ending=1)
    rule = CrossSection(
        "all_of_it", score="close", count=4, rebalance=30, delisted_after=3, delisting_loss=0.25
    )
    free = SimulationConfig(costs=CostModel(fee_bps=0, slippage_bps=0))
    found = booked(rule, panel, free)
    ended = [n for n, s in enumerate(found.symbols) if s == "A003"]
    trades = found.account.trades
    last_close = panel.frame("A003")["close"].iloc[-1]
    assert trades.exit_price[ended[-1]] == last_close * 0.75
    assert found.rebalanced.n_delisted == 1
    gone = panel.frame("A003").index[-1]
    exit_day = trades.exit_ts[ended[-1] : ended[-1] + 1].view("M8[us]").astype("M8[D]")[0]
    assert exit_day - np.datetime64(gone.date()) == 3


def test_an_empty_universe_is_cash_and_counted() -> None:
    panel = universe(5, 60, 2)
    found = booked(replace(MOMENTUM, universe="close > 1.02 * mean(close, 20)", rebalance=3), panel)
    empty = found.targets.reason == 1
    assert found.targets.counts()["empty_universe"] == empty.sum() > 0
    assert not found.targets.weight[empty].any()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (replace(MOMENTUM, score="close / close"), "all scores equal"),
        (replace(MOMENTUM, score="log(close - close)"), "empty universe"),
        (replace(MOMENTUM, min_history=5000), "empty universe"),
    ],
)
def test_what_cannot_be_ranked_at_all_is_refused(rule: CrossSection, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        booked(rule, universe(5, 60, 2))


def test_one_asset_is_refused_and_two_are_ranked() -> None:
    with pytest.raises(BadSymbols, match="at least two assets, and A000"):
        booked(MOMENTUM, universe(1, 60, 2))
    found = booked(MOMENTUM, universe(2, 60, 2))
    assert found.targets.weight.max() == 0.5


def test_settings_of_single_asset_runs_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="delay_bars: a cross-section has no such setting"):
        booked(MOMENTUM, universe(3, 60, 2), SimulationConfig(delay_bars=1))


def test_a_short_that_ruins_the_account_ends_the_run() -> None:
    panel = universe(2, 40, 0)
    prices = {n: panel[n].copy() for n in ("open", "high", "low", "close")}
    rows, loser = panel.rows_of("A000"), panel.rows_of("A001")
    length = rows.stop - rows.start
    growth = 1.3 ** np.arange(length)
    prices["close"][rows] = 100 * growth
    prices["open"][rows] = 100 * growth
    prices["high"][rows], prices["low"][rows] = 101 * growth, 99 * growth
    for name in prices:
        prices[name][loser] = 10.0
    rule = CrossSection("reversal", score="-(close / shift(close, 1))", rebalance=100, count=1,
                        side="long_short", min_history=1)  # fmt: skip
    found = booked(replace(rule, rebalance=9), panel.with_columns(prices))
    assert found.rebalanced.is_ruined
    assert found.rebalanced.equity[-1] == 0.0
    assert 10_000 + found.account.trades.pnl.sum() == pytest.approx(0.0, abs=1e-6)


def test_a_bad_bar_ends_its_asset_and_no_other() -> None:
    panel = universe(5, 80, 2)
    jump = panel.rows_of("A002").start + 40
    prices = {n: panel[n].copy() for n in ("open", "high", "low", "close")}
    for column in prices.values():
        column[jump : panel.rows_of("A002").stop] *= 1000
    broken = panel.with_columns(prices)
    found, whole = booked(MOMENTUM, broken), booked(MOMENTUM, panel)
    length = panel.rows_of("A002").stop - jump
    assert (found.left, found.dropped) == ({"A002": length}, ())
    before, after = broken.ts < broken.ts[jump], broken.ts > broken.ts[jump]
    early = simulate_ranked(MOMENTUM, broken, CONFIG, "all", window=before)
    assert (early.left, early.dropped) == ({}, ())
    late = simulate_ranked(MOMENTUM, broken, CONFIG, "all", window=after)
    assert (late.left, late.dropped) == ({"A002": length - 1}, ("A002",))
    assert "A002" not in late.assets
    n = int(np.searchsorted(found.scores.ts, panel.ts[jump]))
    np.testing.assert_array_equal(found.rebalanced.equity[:n], whole.rebalanced.equity[:n])
    assert np.isnan(found.scores.score[n:, found.assets.index("A002")]).all()


@pytest.mark.parametrize(
    ("weights", "told"),
    [([0.5, 0.4], "0.9"), ([0.5, -0.6], "1.1"), ([np.nan, 1.0], "nan"), ([np.inf, 0.0], "inf")],
)
def test_weights_that_do_not_sum_are_named_with_their_date(weights: list[float], told: str) -> None:
    dates = ["2024-01-07", "2024-01-14", "2024-01-21"]
    sound = [[0.25, -0.75], [0.0, 0.0]]
    require_weights(np.array(sound), dates)
    with pytest.raises(InvalidInput, match=f"weights of 2024-01-21 sum to {told} in absolute"):
        require_weights(np.array([*sound, weights]), dates)
