from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.portfolio.portfolio import (
    SCHEDULES,
    PortfolioRules,
    form_portfolio,
    period_starts,
)
from backtest_pipeline.research.portfolio.weights import SCHEMES
from backtest_pipeline_tests.research.portfolio.curves import NAN, days, markets

JANUARY_TO_MARCH = days("2024-01-01", "2024-01-20", "2024-02-01", "2024-02-20", "2024-03-01")


def test_two_assets_by_hand() -> None:
    # Decided on 1 January, done on 20 January: 500 each; A x4/3 and B x1/2 by 1 February, and
    # stay so to 20 February, when the weights of 1 February are set: 666.67 + 250 = 916.67,
    # spread 458.33 each, moved 208.33 twice, at 1 % for 4.1667.
    curves = np.array([[10.0, 15, 20, 20, 30], [8, 8, 4, 4, 4]])
    found = form_portfolio(curves, JANUARY_TO_MARCH, 1000.0, 0.01)
    np.testing.assert_array_equal(found.rebalance_rows, [1, 3])
    before, cost = 2000 / 3 + 250, 2 * (1000 / 3 - 125) * 0.01
    np.testing.assert_allclose(
        found.equity, [1000, 1000, before, before - cost, (before - cost) * 1.25]
    )
    np.testing.assert_allclose(found.cost, cost)
    np.testing.assert_allclose(found.weights, 0.5)


def test_a_late_listing_waits_for_the_next_month() -> None:
    curves = np.array([[10.0, 10, 10, 10, 10], [NAN, 5, 10, 20, 40]])
    found = form_portfolio(curves, JANUARY_TO_MARCH, 1000.0, 0.0)
    np.testing.assert_allclose(found.weights, [[1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(found.equity, [1000, 1000, 1000, 1000, 1500])


def test_an_asset_that_ends_keeps_its_last_equity_until_the_next_month() -> None:
    curves = np.array([[10.0, 10, 10, 10, 20], [10, 20, NAN, NAN, NAN]])
    found = form_portfolio(curves, JANUARY_TO_MARCH, 1000.0, 0.0)
    np.testing.assert_allclose(found.weights, [[0.5, 0.5], [1, 0]])
    np.testing.assert_allclose(found.equity, [1000, 1000, 1000, 1000, 2000])


def test_capital_is_moved_at_the_bar_after_the_one_that_decides() -> None:
    curves, ts = trading(2, 400)
    found = form_portfolio(curves, ts, 1000.0, 0.0)
    np.testing.assert_array_equal(found.rebalance_rows, period_starts(ts, "monthly") + 1)
    held, expected = np.full(2, 500.0), [1000.0, 1000.0]
    for row in range(2, 400):
        held = held * curves[:, row] / curves[:, row - 1]
        expected.append(held.sum())
        if row in found.rebalance_rows:
            held = np.full(2, held.sum() / 2)
    np.testing.assert_allclose(found.equity, expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_the_bar_after_the_decision_brings_is_not_earned(scheme: str) -> None:
    # Listed, decided upon at the first bar of a month, and doubled at the second: the look-ahead
    # canary `same_close`, which moves capital at the very close that decides it, has that gain.
    curves, ts = trading(2, 90)
    first = int(period_starts(ts, "monthly")[2])
    curves[1, : first - 12] = NAN
    curves[1, first + 1 :] *= 2
    found = form_portfolio(curves, ts, 1000.0, 0.0, PortfolioRules(scheme, lookback=10))
    at = int(np.flatnonzero(found.weights[:, 1])[0])
    assert found.rebalance_rows[at] == first + 1
    same_close = found.weights[at] @ (curves[:, first + 1] / curves[:, first])
    assert same_close > 1.1
    gained = found.equity[first + 1] / found.equity[first]
    np.testing.assert_allclose(gained, curves[0, first + 1] / curves[0, first])


def test_what_is_lost_between_decision_and_deed_is_not_lost_again() -> None:
    curves = np.array([[10.0, 10, 10, 10, 10], [10, 10, 10, 0, 0]])
    found = form_portfolio(curves, JANUARY_TO_MARCH, 1000.0, 0.0)
    np.testing.assert_allclose(found.weights, 0.5)
    np.testing.assert_allclose(found.equity, [1000, 1000, 1000, 500, 500])


def test_a_closed_market_keeps_its_share_at_its_last_equity() -> None:
    # A stock beside a coin: no bar on weekends and some holidays, among them firsts of months.
    rng = np.random.default_rng(7)
    ts = days("2021-01-01")[0] + np.arange(4 * 365) * 86_400_000_000
    curves = np.exp(np.cumsum(rng.normal(0, 0.02, (2, len(ts))), axis=1))
    weekday = (ts // 86_400_000_000 + 3) % 7
    curves[1, weekday >= 5] = NAN
    found = form_portfolio(curves, ts, 1000.0, 0.0)
    assert np.isnan(curves[1, found.rebalance_rows]).sum() > 10
    np.testing.assert_array_equal(found.weights, 0.5)
    assert not found.left_out["no_bar"].any()


def test_a_hole_of_more_than_a_week_at_a_rebalance_is_left_out_and_counted() -> None:
    ts = days("2024-01-01")[0] + np.arange(100) * 86_400_000_000
    curves = np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.02, (3, 100)), axis=1))
    curves[1, 25:40] = NAN  # the last bar is that of 25 January, seven days before 1 February
    curves[2, 24:40] = NAN  # a day more
    found = form_portfolio(curves, ts, 1000.0, 0.0)
    np.testing.assert_allclose(found.weights[1], [0.5, 0.5, 0])
    np.testing.assert_allclose(found.weights[2], 1 / 3)
    np.testing.assert_array_equal(found.left_out["no_bar"], [0, 1, 0, 0])


def test_what_one_member_loses_is_lost_once() -> None:
    curves = np.array([[10.0, 10, 10, 10, 20], [10, 10, 0, 0, 0]])
    found = form_portfolio(curves, JANUARY_TO_MARCH, 1000.0, 0.0)
    np.testing.assert_allclose(found.weights, [[0.5, 0.5], [1, 0]])
    np.testing.assert_allclose(found.equity, [1000, 1000, 500, 500, 1000])


def test_when_all_is_lost_nothing_is_left() -> None:
    curves = np.array([[10.0, 10, 0, 0, 0], [10, 10, 5, 0, 0]])
    found = form_portfolio(curves, JANUARY_TO_MARCH, 1000.0, 0.01)
    np.testing.assert_allclose(found.equity, [1000, 1000, 250, 0, 0])
    assert np.isfinite(found.weights).all()


def test_before_the_first_listing_the_cash_waits() -> None:
    curves = np.array([[NAN, NAN, 10.0, 10, 20]])
    found = form_portfolio(curves, JANUARY_TO_MARCH, 1000.0, 0.01)
    np.testing.assert_allclose(found.equity, [1000, 1000, 1000, 1000, 2000])


def test_a_portfolio_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one run"):
        form_portfolio(np.empty((0, 5)), JANUARY_TO_MARCH, 1000.0, 0.0)


def test_a_portfolio_of_what_never_lives_stays_cash() -> None:
    found = form_portfolio(np.full((2, 5), NAN), JANUARY_TO_MARCH, 1000.0, 0.0)
    assert len(found.rebalance_rows) == len(found.weights) == 0
    np.testing.assert_array_equal(found.equity, 1000.0)


@given(markets())
def test_weights_sum_to_one_and_equity_is_finite(market: tuple[np.ndarray, np.ndarray]) -> None:
    found = form_portfolio(*market, 1000.0, 0.002)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
    assert (found.weights >= 0).all()
    assert (found.equity > 0).all()
    assert found.cost >= 0


@given(markets(), st.integers(1, 149))
def test_only_the_past_counts(market: tuple[np.ndarray, np.ndarray], n: int) -> None:
    curves, ts = market
    whole = form_portfolio(curves, ts, 1000.0, 0.002)
    part = form_portfolio(curves[:, :n], ts[:n], 1000.0, 0.002)
    np.testing.assert_array_equal(part.equity, whole.equity[:n])
    np.testing.assert_array_equal(part.weights, whole.weights[: len(part.weights)])


@given(markets(), st.randoms())
def test_the_order_of_assets_is_irrelevant(market: tuple[np.ndarray, np.ndarray], random) -> None:
    curves, ts = market
    order = list(range(len(curves)))
    random.shuffle(order)
    one = form_portfolio(curves, ts, 1000.0, 0.002)
    other = form_portfolio(curves[order], ts, 1000.0, 0.002)
    np.testing.assert_allclose(one.equity, other.equity, rtol=1e-12)
    np.testing.assert_array_equal(one.weights[:, order], other.weights)


@given(markets())
def test_costs_only_cost(market: tuple[np.ndarray, np.ndarray]) -> None:
    free = form_portfolio(*market, 1000.0, 0.0)
    dear = form_portfolio(*market, 1000.0, 0.01)
    assert (dear.equity <= free.equity * (1 + 1e-12)).all()


def trading(n_assets: int, n_times: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Equity curves that never stand still, daily from Wednesday 15 November 2023."""
    rng = np.random.default_rng(seed)
    ts = days("2023-11-15")[0] + np.arange(n_times) * 86_400_000_000
    return np.exp(np.cumsum(rng.normal(0, 0.03, (n_assets, n_times)), axis=1)), ts


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rebalance", SCHEDULES)
@given(markets(), st.integers(1, 149), st.sampled_from([1.0, 0.4]))
def test_what_comes_later_changes_no_earlier_weight(
    scheme: str, rebalance: str, market: tuple[np.ndarray, np.ndarray], n: int, cap: float
) -> None:
    curves, ts = market
    rules = PortfolioRules(scheme, rebalance, 20, cap)
    whole = form_portfolio(curves, ts, 1000.0, 0.002, rules)
    part = form_portfolio(curves[:, :n], ts[:n], 1000.0, 0.002, rules)
    known = len(part.rebalance_rows)
    np.testing.assert_array_equal(part.rebalance_rows, whole.rebalance_rows[:known])
    np.testing.assert_array_equal(part.weights, whole.weights[:known])
    np.testing.assert_array_equal(part.equity, whole.equity[:n])


@pytest.mark.parametrize("scheme", SCHEMES)
@given(markets(), st.randoms())
def test_the_order_of_assets_changes_no_weight(
    scheme: str, market: tuple[np.ndarray, np.ndarray], random
) -> None:
    curves, ts = market
    order = list(range(len(curves)))
    random.shuffle(order)
    rules = PortfolioRules(scheme, "monthly", 20)
    one = form_portfolio(curves, ts, 1000.0, 0.002, rules)
    other = form_portfolio(curves[order], ts, 1000.0, 0.002, rules)
    np.testing.assert_allclose(one.weights[:, order], other.weights, atol=1e-8)
    np.testing.assert_allclose(one.equity, other.equity, rtol=1e-8)


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "equal_weight"])
def test_an_asset_joins_at_the_first_rebalance_with_enough_history(scheme: str) -> None:
    curves, ts = trading(3, 120)
    curves[2, :40] = NAN
    found = form_portfolio(curves, ts, 1000.0, 0.0, PortfolioRules(scheme, "weekly", 30, 0.6))
    # The first two have 30 returns at row 30, the third at row 70; weeks begin at rows 5, 12 ...
    decided = found.rebalance_rows - 1
    np.testing.assert_array_equal(decided, np.arange(33, 119, 7))
    assert (found.weights[:, :2].sum(axis=1) > 0).all()
    joined = decided >= 70
    assert not found.weights[~joined, 2].any()
    alive = (decided >= 40) & ~joined
    np.testing.assert_array_equal(found.left_out["short_history"], alive)
    np.testing.assert_array_equal(found.equity[:35], 1000.0)


def test_an_asset_that_stands_still_is_left_out_and_counted() -> None:
    curves, ts = trading(3, 120)
    curves[1, :80] = 1.0
    rules = PortfolioRules("minimum_variance", "weekly", 30)
    found = form_portfolio(curves, ts, 1000.0, 0.0, rules)
    still = found.rebalance_rows - 1 < 80
    assert still.any()
    assert not found.weights[still, 1].any()
    np.testing.assert_array_equal(found.left_out["constant_returns"], still)


def test_where_all_stand_still_nothing_is_formed() -> None:
    rules = PortfolioRules("hrp", lookback=20)
    found = form_portfolio(np.ones((3, 120)), trading(3, 120)[1], 1000.0, 0.0, rules)
    assert len(found.rebalance_rows) == 0
    np.testing.assert_array_equal(found.equity, 1000.0)


def test_what_a_cap_leaves_is_cash() -> None:
    # 300 each and 400 cash on 20 January; 600 + 150 + 400 = 1150 on 20 February: 345 each,
    # 255 + 195 moved.
    curves = np.array([[10.0, 15, 20, 30, 45], [8, 8, 4, 4, 4]])
    rules = PortfolioRules(max_weight=0.3)
    found = form_portfolio(curves, JANUARY_TO_MARCH, 1000.0, 0.01, rules)
    np.testing.assert_allclose(found.weights, 0.3)
    np.testing.assert_allclose(found.equity[:4], [1000, 1000, 400 + 150 + 400, 1150 - 4.5])
    np.testing.assert_allclose(found.turnover[1], 450 / 1150)
    np.testing.assert_allclose(found.equity[4], 1145.5 * (0.3 * 1.5 + 0.3 + 0.4))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("weekly", ["2023-11-15", "2023-11-20", "2023-11-27", "2023-12-04"]),
        ("monthly", ["2023-11-15", "2023-12-01", "2024-01-01", "2024-02-01"]),
        ("quarterly", ["2023-11-15", "2024-01-01", "2024-04-01", "2024-07-01"]),
    ],
)
def test_a_schedule_begins_with_each_week_month_or_quarter(
    schedule: str, expected: list[str]
) -> None:
    _, ts = trading(1, 250)
    np.testing.assert_array_equal(ts[period_starts(ts, schedule)[:4]], days(*expected))
    sparse = ts[::50]  # some periods have no bar, the others begin with the first that they have
    assert (np.diff(period_starts(sparse, schedule)) > 0).all()
    assert period_starts(sparse, schedule)[0] == 0
