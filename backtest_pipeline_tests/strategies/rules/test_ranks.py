"""`rank_pct(x)` in rules: its column, what is ranked in it, and how it is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput, RuleError
from backtest_pipeline.market.features import build_features, with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.rules import from_toml
from backtest_pipeline.strategies.rules.ranks import RankedColumns, with_ranks
from backtest_pipeline.strategies.strategy import Lookback, conditions_of
from backtest_pipeline_tests.strategies.rules import by_loop
from backtest_pipeline_tests.strategies.rules.by_loop import by_loop as looped
from backtest_pipeline_tests.strategies.rules.by_loop import columns, panel_of, rows_of

MOMENTUM = """
name = "momentum"
long_entry = "rank_pct(ret) >= top and shift(rank_pct(rsi(n)), 1) > 0.2"
long_exit = "rank_pct(ret) < 0.5"
[params]
days = { default = 90, min = 1, max = 500, grid = [30, 90] }
n = { default = 14, min = 2, max = 100 }
top = 0.8
[define]
ret = "close / shift(close, days) - 1"
"""


@pytest.fixture(scope="module")
def market() -> Panel:
    return build_features(SampleMarket().read().panels["1D"])


def ranked_by_loop(text: str, assets: list[dict[str, Any]]) -> list[float]:
    """The rank of an expression at each bar of each asset, asset by asset; NaN where unknown."""
    values = [looped(text, asset) for asset in assets]
    found = []
    for own in values:
        for t, x in enumerate(own):
            here = [other[t] for other in values if t < len(other) and other[t] is not None]
            less = sum(y < x for y in here) if x is not None else 0
            equal = sum(y == x for y in here) if x is not None else 0
            found.append((less + (equal + 1) / 2) / len(here) if x is not None else math.nan)
    return found


VARYING = by_loop.exact_numbers.filter(lambda text: "close" in text or "open" in text)


@given(text=VARYING, assets=st.lists(columns(), min_size=1, max_size=4))
def test_a_rank_is_the_share_of_assets_below_at_the_bar(
    text: str, assets: list[dict[str, Any]]
) -> None:
    name = f"rank_pct({text})"
    found = with_ranks(panel_of(*map(rows_of, assets)), [name])[name]
    np.testing.assert_allclose(found, ranked_by_loop(text, assets), rtol=1e-14)


def _rules(inner: str, **params: Any) -> bytes:
    given_params = "\n".join(f"{name} = {str(v).lower()}" for name, v in params.items())
    return f"""name = "r"
long_entry = "rank_pct({inner}) > 0.5"
[params]
{given_params}
[columns]
score = "number"
chosen = "flag"
""".encode()


ANY = by_loop.numbers.filter(lambda text: "close" in text or "open" in text)


@given(text=ANY, asset=columns())
def test_the_name_of_the_column_says_what_is_ranked(text: str, asset: dict[str, Any]) -> None:
    strategy = from_toml(_rules(text), "r.toml")
    (name,) = strategy.columns(strategy.parse({}))
    again = from_toml(_rules(name.removeprefix("rank_pct(").removesuffix(")")), "r.toml")
    assert again.columns(again.parse({})) == (name,)
    panel = panel_of(rows_of(asset), rows_of(asset))
    direct, written = (RankedColumns([n]).values(panel)[n] for n in (f"rank_pct({text})", name))
    np.testing.assert_array_equal(direct, written)


@pytest.mark.parametrize(
    ("inner", "params", "written"),
    [
        ("rsi(n)", {"n": 7}, "rsi_7"),
        ("rsi(2 * n)", {"n": 7}, "rsi_14"),
        ("close * k", {"k": 1e-9}, "close * 1e-09"),
        ("close * k", {"k": -2.5}, "close * -2.5"),
        ("close if on else open", {"on": True}, "close"),
        ("close if on else open", {"on": False}, "open"),
        ("score if chosen else -close", {}, "score if (chosen < 0 or 0 < chosen) else (-close)"),
        (
            "1 if has_outlier and on else close",
            {"on": True},
            "1 if (has_outlier and (0 < 1)) else close",
        ),
        ("(close - open) / (high - low)", {}, "(close - open) / (high - low)"),
        ("std(close, n, ddof=1, prior=True)", {"n": 5}, "shift(std(close, 5, ddof=1), 1)"),
        ("at('1W', close / mean(close, n))", {"n": 4}, "at('1W', (close / mean(close, 4)))"),
        ("min(close, open, n)", {"n": 3}, "min(min(close, open), 3)"),
    ],
)
def test_parameters_and_parts_are_written_out(
    inner: str, params: dict[str, Any], written: str
) -> None:
    strategy = from_toml(_rules(inner, **params), "r.toml")
    (name,) = strategy.columns(strategy.parse({}))
    assert name == f"rank_pct({written})"
    assert set(RankedColumns([name]).reads) <= {
        *("open", "high", "low", "close", "volume", "score", "chosen", "has_outlier"),
        *("rsi_7", "rsi_14"),
    }


def test_each_value_of_a_parameter_has_its_own_ranks_and_equal_ones_are_one() -> None:
    strategy = from_toml(MOMENTUM.encode(), "momentum.toml")
    names = [strategy.columns(strategy.parse({"days": days})) for days in (30, 90)]
    assert names[0] != names[1]
    assert strategy.columns(strategy.parse({"top": 0.9})) == names[1]
    assert strategy.columns(strategy.parse({})) == (
        "rank_pct((close / shift(close, 90)) - 1)",
        "rank_pct(rsi_14)",
    )
    assert strategy.lookback(strategy.parse({})) == Lookback(91, recursive=True)


def test_rules_on_ranks_are_those_of_the_same_columns_by_pandas(market: Panel) -> None:
    strategy = from_toml(MOMENTUM.encode(), "momentum.toml")
    params = strategy.parse({})
    names = strategy.columns(params)
    found = conditions_of(strategy, with_ranks(market, names), params)
    frames = {asset: market.frame(asset) for asset in market.assets}
    days = {asset: pd.DatetimeIndex(f.index).floor("D") for asset, f in frames.items()}
    wide = {
        name: pd.DataFrame({a: values(f).set_axis(days[a]) for a, f in frames.items()})
        for name, values in {
            "ret": lambda f: f["close"] / f["close"].shift(90) - 1,
            "rsi": lambda f: f["rsi_14"],
        }.items()
    }
    ret, rsi = (frame.rank(axis=1, pct=True) for frame in wide.values())
    for asset in market.assets:
        own, of_rsi = ret[asset].reindex(days[asset]), rsi[asset].reindex(days[asset])
        rows = market.rows_of(asset)
        expected = (own >= 0.8) & (of_rsi.shift(1) > 0.2)
        np.testing.assert_array_equal(found.long_entry[rows], expected.to_numpy())
        np.testing.assert_array_equal(found.long_exit[rows], (own < 0.5).to_numpy())
    assert 0.05 < found.long_entry.mean() < 0.5


def test_ranks_of_a_part_of_the_universe_are_others(market: Panel) -> None:
    names = ["rank_pct(rsi_14)"]
    some = market.assets[:3]
    whole = with_ranks(market, names).select(some)[names[0]]
    assert np.mean(whole != with_ranks(market.select(some), names)[names[0]]) > 0.5
    assert set(np.unique(with_ranks(market.select(some[:1]), names)[names[0]])) >= {1.0}


def test_the_bars_of_one_asset_do_not_give_a_rank(market: Panel) -> None:
    with pytest.raises(InvalidInput, match=r"rank_pct\(rsi_14\).*all assets"):
        with_indicators(market.select(market.assets[:1]), ["rank_pct(rsi_14)"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rank_pct(rsi_14) > 1", "rank_pct\\(x\\) alone"),
        ("rank_pct(close", "cannot be read"),
        ("rank_pct(shift(close, -1))", "the future"),
        ("rank_pct(__import__('os'))", "is no function"),
    ],
)
def test_a_name_that_is_no_rank_is_refused(name: str, reason: str) -> None:
    with pytest.raises(RuleError, match=reason):
        RankedColumns([name])


def test_parameters_that_leave_nothing_to_rank_are_refused() -> None:
    strategy = from_toml(_rules("close * log(k)", k=2.0), "r.toml")
    with pytest.raises(InvalidInput, match="never defined"):
        strategy.parse({"k": -1.0})
