"""A ticker is not an asset: several coins under one are several series, and all else is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.asset_identity import (
    Trait,
    coin_of_contract,
    remarks_on,
    traits_table,
)
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.price_levels import FEWEST_BARS, STRAY, StepRule, coins
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.market.validation import Reason, validate_bars
from backtest_pipeline.sources.files import FileBars

N = FEWEST_BARS
START = 19_000 * DAY_US


def daily(opens: list[float], closes: list[float] | None = None, name: str = "A") -> Panel:
    """Daily bars of one asset; each opens and closes at the same price where not told apart."""
    open_, close = np.array(opens), np.array(closes or opens)
    n = len(open_)
    ts = START + DAY_US * np.arange(1, n + 1) - CLOSE_STAMP_US
    columns = {
        "open": open_,
        "high": np.maximum(open_, close),
        "low": np.minimum(open_, close),
        "close": close,
        "volume": np.ones(n),
    }
    return Panel(timeframe("1D"), (name,), np.array([0, n]), ts, columns)


def validated(raw: Panel) -> tuple[Panel, dict[tuple[str, Reason], int]]:
    clean, issues = validate_bars(raw, START + 10_000 * DAY_US)
    return clean, {(issue.asset, issue.reason): issue.rows for issue in issues}


def test_two_coins_under_one_ticker_are_two_assets() -> None:
    """As LUNA in May 2022: the next bar opens at 171,116 times the last close."""
    clean, found = validated(daily([5e-5] * 40 + [5e-5 * 171_116] * N))
    assert clean.assets == ("A", "A.2")
    assert clean.lengths.tolist() == [40, N]
    assert clean["close"].tolist() == [5e-5] * 40 + [5e-5 * 171_116] * N
    assert found == {("A", Reason.TICKER_REUSED): N, ("A.2", Reason.LATER_COIN): N}


def test_a_redenomination_is_split_as_well_and_each_coin_named_in_the_order_of_its_growth() -> None:
    clean, _ = validated(daily([1.0] * N + [1000.0] * N + [1e6] * N))
    assert clean.assets == ("A", "A.2", "A.3")
    assert clean["close"][clean.offsets[:-1]].tolist() == [1.0, 1000.0, 1e6]


@pytest.mark.parametrize(
    "levels",
    [
        (100.0, 0.5, 100.0),  # comes back to where it was
        (100.0, 0.005, 555.0),
        (100.0, 9_800.0, 100.0),
        (100.0, 3_900.0, 100.0),  # a join of 39 to 1
        (100.0, 10.0, 1.0),
        (100.0, 600.0, 100.0),
    ],
)
def test_episodes_are_never_rejoined_whatever_their_levels(levels: tuple[float, ...]) -> None:
    clean, found = validated(daily([price for price in levels for _ in range(N)]))
    assert clean.assets == ("A", "A.2", "A.3")
    for asset, price in zip(clean.assets, levels, strict=True):
        assert clean["close"][clean.rows_of(asset)].tolist() == [price] * N
    assert found[("A", Reason.TICKER_REUSED)] == 2 * N


@pytest.mark.parametrize("n", [4, N - 1])
def test_a_short_episode_is_skipped_and_what_it_parts_stays_apart(n: int) -> None:
    clean, found = validated(daily([2.0] * 40 + [900.0] * n + [2.5] * 40))
    assert clean.assets == ("A", "A.2")
    assert clean.lengths.tolist() == [40, 40]
    assert found[("A", Reason.PRICE_JUMP)] == n


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("factor", [100.0, 1 / 100, 6.0, 1 / 6])
def test_a_few_bars_in_other_units_that_come_straight_back_are_bad_rows(
    n: int, factor: float
) -> None:
    prices = np.array([100.0 + i % 3 for i in range(60)])
    prices[30 : 30 + n] *= factor
    clean, found = validated(daily(prices.tolist()))
    assert clean.assets == ("A",)
    assert found == {("A", Reason.PRICE_JUMP): n, ("A", Reason.GAP): n}


@pytest.mark.parametrize("row", [7, 30, 59])
@pytest.mark.parametrize("factor", [100.0, 10.0, 5.5, 1 / 5.5, 1 / 100])
@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
def test_any_price_of_a_bar_that_is_far_off_makes_it_a_bad_row(
    column: str, factor: float, row: int
) -> None:
    raw = daily([100.0 + i % 3 for i in range(60)])
    prices = {name: raw[name].copy() for name in ("open", "high", "low", "close")}
    prices[column][row] *= factor
    prices["high"] = np.maximum.reduce(list(prices.values()))
    prices["low"] = np.minimum.reduce(list(prices.values()))
    clean, found = validated(raw.with_columns(prices))
    if (column, factor > 1) in {("high", False), ("low", True)}:
        return  # the high is no lower than the others
    assert found[("A", Reason.PRICE_JUMP)] == 1
    assert len(clean) == 59
    assert raw.ts[row] not in clean.ts


def test_a_wick_in_turmoil_is_the_market() -> None:
    """LINK fell to 0.0001 within an hour of 12 March 2020, on six times the usual volume."""
    raw = daily([3.1] * 30 + [3.06] + [2.5] * 30, [3.1] * 30 + [2.5] * 31)
    low, volume = raw["low"].copy(), raw["volume"].copy()
    low[30], volume[30] = 1e-4, 6.0
    clean, found = validated(raw.with_columns({"low": low, "volume": volume}))
    assert (len(clean), found) == (61, {})


def test_a_last_bar_that_closes_far_off_waits_for_the_next_one() -> None:
    opens = [80.0] * 40 + [81.0]
    closes = [80.0] * 40 + [8.0]
    clean, found = validated(daily(opens, closes))
    assert (len(clean), found) == (40, {("A", Reason.PRICE_JUMP): 1})
    clean, found = validated(daily([*opens, 8.0], [*closes, 8.0]))
    assert (len(clean), found) == (42, {})


def stepped(factor: float) -> Panel:
    return daily([100.0] * 40 + [100.0 * factor] * 40)


def remarks_of(raw: Panel, **rules: StepRule) -> tuple[Panel, dict[tuple[str, Trait], str]]:
    clean, issues = validate_bars(raw, START + 10_000 * DAY_US, rules)
    later = {i.asset: i.asset[:-2] for i in issues if i.reason is Reason.LATER_COIN}
    found = remarks_on({"1D": clean}, clean.assets, later, {"1D": int(raw.ts.max())})
    return clean, {(r.asset, r.trait): r.detail for r in found if r.trait is not Trait.ENDED}


def test_steps_are_told_from_three_on_and_part_assets_from_five_on() -> None:
    assert remarks_of(stepped(2.9))[1] == {}
    clean, found = remarks_of(stepped(1 / 3.2))
    assert clean.assets == ("A",)
    assert found == {("A", Trait.PRICE_STEP): "step of 3.2 to 1 between two bars"}
    clean, found = remarks_of(stepped(4.5))
    assert clean.assets == ("A",)
    assert found == {("A", Trait.PRICE_STEP): "step of 1 to 4.5 between two bars"}
    clean, found = remarks_of(stepped(1 / 10))
    assert clean.assets == ("A", "A.2")
    assert found[("A.2", Trait.LATER_COIN)].startswith(
        "under the ticker A, after a step of 10.0 to 1"
    )
    assert "step of 10.0 to 1 between two bars" in found[("A", Trait.TICKER_REUSED)]


def test_bars_in_other_units_that_are_left_out_are_told_as_what_parts_the_asset() -> None:
    raw = daily([100.0] * 40 + [10_000.0] * 10 + [110.0] * 40)
    clean, found = remarks_of(raw)
    assert clean.assets == ("A", "A.2")
    why = "stretch of fewer than 30 bars on another level, which are left out, before "
    assert found[("A", Trait.TICKER_REUSED)].startswith(why)
    assert found[("A.2", Trait.LATER_COIN)].startswith(f"under the ticker A, after a {why}")


def test_the_settings_say_that_a_step_is_a_split_or_the_markets() -> None:
    clean, found = remarks_of(stepped(1 / 10), A=StepRule.SAME)
    assert clean.assets == ("A",)
    assert clean["close"].tolist() == [100.0] * 40 + [10.0] * 40
    assert found == {("A", Trait.PRICE_STEP): "step of 10.0 to 1 between two bars"}

    clean, found = remarks_of(stepped(1 / 9.7), A=StepRule.SPLIT)
    assert clean.assets == ("A",)
    assert clean["close"] == pytest.approx([10.0] * 40 + [100 / 9.7] * 40)
    assert clean["volume"].tolist() == [10.0] * 40 + [1.0] * 40
    assert found == {}

    clean, _ = remarks_of(stepped(8.0), A=StepRule.SPLIT)  # a reverse split
    assert clean["close"] == pytest.approx([800.0] * 80)
    # A lone bad bar is one under every rule.
    lone = daily([100.0] * 30 + [9_000.0] + [100.0] * 30)
    assert (
        len(remarks_of(lone, A=StepRule.SAME)[0])
        == len(remarks_of(lone, A=StepRule.SPLIT)[0])
        == 60
    )


def test_the_same_prices_under_two_names_are_told() -> None:
    rng = np.random.default_rng(1)
    walk = (100 * np.exp(np.cumsum(rng.normal(0, 0.02, 60)))).tolist()
    closes = [*walk[1:], walk[0]]
    other = (0.01 * np.exp(np.cumsum(rng.normal(0, 0.02, 60)))).tolist()
    parts = [daily(walk, closes, "BTC"), daily(other, name="DOGE"), daily(walk, closes, "ETH")]
    panel = Panel.join(timeframe("1D"), ("BTC", "DOGE", "ETH"), parts, list(parts[0].columns))
    clean, _ = validated(panel)
    found = remarks_on({"1D": clean}, clean.assets, {}, {"1D": int(clean.ts.max())})
    assert [(r.asset, r.trait, r.related, r.detail) for r in found] == [
        ("BTC", Trait.IDENTICAL, "ETH", "60 of 60 bars have the prices of ETH"),
        ("ETH", Trait.IDENTICAL, "BTC", "60 of 60 bars have the prices of BTC"),
    ]
    # Of three, each is remarked on once: a row is one asset's, timeframe's and trait's.
    names = ("BTC", "ETH", "LTC")
    alike = [daily(walk, closes, name) for name in names]
    panel, _ = validated(Panel.join(timeframe("1D"), names, alike, list(parts[0].columns)))
    found = remarks_on({"1D": panel}, names, {}, {"1D": int(panel.ts.max())})
    assert [(r.asset, r.related) for r in found] == [("BTC", "ETH"), ("ETH", "BTC"), ("LTC", "ETH")]
    assert found[1].detail == (
        "60 of 60 bars have the prices of BTC; 60 of 60 bars have the prices of LTC"
    )
    # Prices that stand still are no sign.
    still = [daily([1.0] * 60, name=name) for name in ("USDC", "USDT")]
    panel = Panel.join(timeframe("1D"), ("USDC", "USDT"), still, list(still[0].columns))
    found = remarks_on({"1D": panel}, panel.assets, {}, {"1D": int(panel.ts.max())})
    assert {r.trait for r in found} == {Trait.STABLE}


def test_one_odd_price_costs_its_bar_and_no_more() -> None:
    calm = [2.0] * 60
    for column in ("open", "close"):
        odd = [*calm[:30], 900.0, *calm[31:]]
        clean, found = validated(daily(odd, calm) if column == "open" else daily(calm, odd))
        assert clean.assets == ("A",)
        assert len(clean) == 59
        assert found == {("A", Reason.PRICE_JUMP): 1, ("A", Reason.GAP): 1}


def test_a_crash_within_a_bar_is_the_market() -> None:
    """LUNA fell 227-fold on 12 May 2022; the next day opened where that one closed."""
    opens = [80.0] * 40 + [1.07] + [0.0047] * 40
    closes = [80.0] * 39 + [1.07, 0.0047] + [0.0047] * 40
    clean, found = validated(daily(opens, closes))
    assert (clean.assets, len(clean), found) == (("A",), 81, {})


def test_each_asset_is_split_alone() -> None:
    reused, calm = daily([1.0] * N + [500.0] * N), daily([3.0] * N, name="B")
    both = Panel.join(reused.timeframe, ("B", "A"), [calm, reused], list(calm.columns))
    clean, _ = validated(both)
    assert clean.assets == ("B", "A", "A.2")
    assert clean.lengths.tolist() == [N, N, N]


steps = st.sampled_from([0.0, 0.0, 0.0, 5.0, -5.0, 10.0])
stretches = st.lists(st.tuples(steps, st.integers(1, 2 * N)), min_size=1, max_size=6)


@given(stretches, st.floats(0, 1))
def test_more_bars_never_rename_a_coin(stretches: list[tuple[float, int]], share: float) -> None:
    level = np.repeat(np.cumsum([step for step, _ in stretches]), [n for _, n in stretches])
    panel = daily(np.exp(level).tolist())
    cut = int(share * len(panel))
    before, after = coins(panel.take(np.arange(len(panel)) < cut)), coins(panel)
    for coin in np.unique(before[before != STRAY]):
        rows = np.flatnonzero(before == coin)
        if len(rows) >= N:
            assert set(after[rows]) == {coin}


@given(stretches)
def test_each_row_is_in_one_asset_or_skipped(stretches: list[tuple[float, int]]) -> None:
    level = np.repeat(np.cumsum([step for step, _ in stretches]), [n for _, n in stretches])
    raw = daily(np.exp(level).tolist())
    clean, found = validated(raw)
    moved = found.get(("A", Reason.TICKER_REUSED), 0)
    assert moved == len(clean) - int(clean.lengths[0])
    assert len(raw) == len(clean) + found.get(("A", Reason.PRICE_JUMP), 0)
    for asset in clean.assets:
        rows = clean.rows_of(asset)
        step = np.abs(np.diff(np.log(clean["close"][rows])))
        hole = np.diff(clean.ts[rows]) > DAY_US
        assert np.all(hole | (step < np.log(5)))


def told(panel: Panel, **more: object) -> dict[Trait, str]:
    newest = {"1D": int(panel.ts.max()) + int(str(more.get("later", 0))) * DAY_US}
    found = remarks_on({"1D": panel}, panel.assets, {}, newest)
    return {remark.trait: remark.detail for remark in found}


def test_a_hole_is_told_and_not_split() -> None:
    raw = daily([2.0] * 100)
    holed = raw.take((np.arange(100) < 40) | (np.arange(100) >= 80))
    holed = holed.with_columns({"open": np.where(np.arange(60) < 40, 2.0, 24.0)})
    clean, found = validated(
        holed.with_columns(dict.fromkeys(("high", "low", "close"), holed["open"]))
    )
    assert found == {("A", Reason.GAP): 40}
    assert told(clean) == {Trait.LONG_HOLE: "no bars for 41 days, then 12 times the price"}
    assert told(raw.take((np.arange(100) < 40) | (np.arange(100) >= 65))) == {}


def test_a_series_that_ends_long_before_the_others_is_told() -> None:
    assert told(daily([2.0] * 50), later=30) == {}
    assert told(daily([2.0] * 50), later=31) == {
        Trait.ENDED: "31 days before the newest bar of the source"
    }


@pytest.mark.parametrize(
    ("closes", "stable"),
    [
        ([1.0, 1.001] * 50, True),
        ([1.0] * 97 + [0.88] * 3, True),  # a depeg
        ([1.0] * 90 + [0.88] * 10, False),
        ([1.0, 1.02] * 50, False),  # a coin that happens to cost about one
        ([1.0] * (N - 1), False),
        ([1.1, 1.101] * 50, False),
    ],
)
def test_a_price_that_is_pinned_to_one_is_a_stable(closes: list[float], stable: bool) -> None:
    assert (Trait.STABLE in told(daily(closes))) == stable


@pytest.mark.parametrize(
    ("symbol", "coin"),
    [
        ("1000PEPEUSDT", ("PEPEUSDT", 1000)),
        ("1000000MOGUSDT", ("MOGUSDT", 1_000_000)),
        ("1000PEPE", ("PEPE", 1000)),
        ("SHIB1000USDT", ("SHIBUSDT", 1000)),
        ("1INCHUSDT", None),
        ("LUNA2USDT", None),
        ("C98USDT", None),
        ("100XUSDT", None),
        ("BTC", None),
        ("1000", None),
    ],
)
def test_contracts_on_many_coins_are_known_by_their_symbol(
    symbol: str, coin: tuple[str, int] | None
) -> None:
    assert coin_of_contract(symbol) == coin


def test_two_contracts_on_one_coin_are_told_and_stay_apart() -> None:
    assets = ("1000PEPE", "BTC", "PEPE")
    parts = [daily([price] * 50, name=a) for a, price in zip(assets, (8.0, 9e4, 8e-3), strict=True)]
    panel = Panel.join(timeframe("1D"), assets, parts, list(parts[0].columns))
    clean, found = validated(panel)
    assert (clean.assets, found) == (assets, {})
    remarks = remarks_on({"1D": clean}, assets, {}, {"1D": int(clean.ts.max())})
    assert [(r.asset, r.trait, r.related) for r in remarks] == [
        ("1000PEPE", Trait.MULTIPLE, "PEPE"),
        ("1000PEPE", Trait.SAME_COIN, "PEPE"),
        ("PEPE", Trait.SAME_COIN, "1000PEPE"),
    ]


FILES = ("cmc_daily", "binance_daily", "binance_hourly", "bybit_perp_daily")


def test_the_page_shows_the_traits_and_what_the_real_files_hold(test_data: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data-quality.md").read_text(encoding="utf-8")
    assert traits_table() in page
    table = ["| file | asset | trait | figures |", "| --- | --- | --- | --- |"]
    for file in FILES:
        bars = FileBars(test_data / f"{file}.parquet").read()
        assert not [i for i in bars.issues if i.reason in (Reason.PRICE_JUMP, Reason.LATER_COIN)]
        table += [f"| {file} | {r.asset} | `{r.trait}` | {r.detail} |" for r in bars.remarks]
    assert "\n".join(table) + "\n" in page


def test_the_largest_true_rise_of_a_day_is_no_jump(test_data: Path) -> None:
    """DOGE rose by 356 % on 28 January 2021."""
    bars = FileBars(test_data / "cmc_daily.parquet").read(["DOGE"])
    close = bars.panels["1D"]["close"]
    assert np.max(close[1:] / close[:-1] - 1) == pytest.approx(3.56, abs=0.01)
    assert {issue.reason for issue in bars.issues} <= {Reason.ZERO_VOLUME}
    assert bars.remarks == ()
