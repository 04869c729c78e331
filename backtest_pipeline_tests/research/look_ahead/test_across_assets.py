"""Ranks that know a later bar are found, whichever asset's it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.cross_section import is_rank
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.look_ahead.across_assets import leak_across_assets
from backtest_pipeline.research.look_ahead.look_ahead import require_no_look_ahead
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.rules import from_toml
from backtest_pipeline.strategies.rules.ranks import with_ranks
from backtest_pipeline.strategies.strategy import Params, Strategy
from backtest_pipeline.trading.conditions import Conditions

RULES = from_toml(
    b"""name = "momentum"
long_entry = "rank_pct(close / shift(close, n)) > 0.8"
long_exit = "rank_pct(rsi_14) < 0.5"
[params]
n = 20
""",
    "momentum.toml",
)
SETS = [{"n": 20}, {"n": 90}]


@pytest.fixture(scope="module")
def universe() -> Panel:
    return build_features(SampleMarket().read().panels["1D"])


def tomorrows(panel: Panel, names: Sequence[str]) -> Panel:
    """The ranks of the next bar."""
    known = with_ranks(panel, names)
    by_asset = known.segment_of_row
    ranks = {n: pd.Series(known[n]).groupby(by_asset).shift(-1) for n in names if is_rank(n)}
    return known.with_columns({n: ranks[n].to_numpy() for n in ranks})


def among_survivors(panel: Panel, names: Sequence[str]) -> Panel:
    """Ranks among the assets that have a bar on the last day alone."""
    known = with_ranks(panel, names)
    last = known.ts[known.offsets[1:] - 1]
    survivors = [a for a, ts in zip(known.assets, last, strict=True) if ts == last.max()]
    among = with_ranks(panel.select(survivors), names)
    ranks = {n: known[n].copy() for n in names if is_rank(n)}
    for asset in survivors:
        for name, column in ranks.items():
            column[known.rows_of(asset)] = among[name][among.rows_of(asset)]
    return known.with_columns(ranks)


def test_ranks_of_the_same_bar_pass(universe: Panel) -> None:
    assert leak_across_assets(universe, RULES, SETS) is None


@pytest.mark.parametrize("leaking", [tomorrows, among_survivors])
def test_ranks_that_know_a_later_bar_are_found(
    universe: Panel, leaking: Callable[[Panel, Sequence[str]], Panel]
) -> None:
    found = leak_across_assets(universe, RULES, SETS, leaking)
    assert found
    assert re.search(r"momentum on .* looks ahead: rank_pct\(.*\) at .* of this or other", found[0])
    assert found[1] in SETS
    # An asset alone, with ranks taken as given, does not show it.
    names = [n for given in SETS for n in RULES.columns(RULES.parse(given))]
    given_ranks = leaking(universe, names)
    require_no_look_ahead(given_ranks, RULES, SETS, "S-ETA")


def test_a_rule_that_compares_assets_by_what_comes_later_is_found(universe: Panel) -> None:
    def above_all(panel: Panel, _: Params) -> Conditions:
        rank = panel["rank_pct(close)"]
        high = rank > np.nanmean(rank)  # of all bars, the later ones too
        return Conditions(high, ~high, ~high, high)

    strategy = Strategy("above_all", Params, lambda _: ("rank_pct(close)",), above_all)
    found = leak_across_assets(universe, strategy, [{}])
    assert found
    assert "looks ahead: signals at" in found[0]
