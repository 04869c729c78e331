"""Look-ahead test of strategies that compare assets: the future of all of them is replaced.

A rank that knew a later bar would lie in the inputs of a strategy already, where a test of one
asset takes it as given. So ranks are computed anew here, from each of the other futures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backtest_pipeline.market.cross_section import is_rank
from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.features.derive import is_given_by_bars
from backtest_pipeline.market.panel import OHLCV, Panel, utc_index
from backtest_pipeline.research.look_ahead.look_ahead import draw_cuts, leaks
from backtest_pipeline.simulation.windows import conditions_by_params
from backtest_pipeline.strategies.rules.ranks import with_ranks
from backtest_pipeline.strategies.strategy import Strategy

CUTS = 4


def leak_across_assets(
    universe: Panel,
    strategy: Strategy[Any],
    params: Sequence[Mapping[str, Any]],
    ranked: Callable[[Panel, Sequence[str]], Panel] = with_ranks,
) -> tuple[str, Mapping[str, Any]] | None:
    """What of ranks and signals up to a bar depends on later bars of any asset.

    Args:
        universe: bars of all assets, and columns that are not computed from them here.
        strategy: strategy to test.
        params: parameter sets to test, all at once.
        ranked: adds the columns that are ranks to bars of all assets.

    Returns:
        The first leak in words, and a parameter set that shows it; None where there is none.
    """
    shown_by = {name: given for given in params for name in strategy.columns(strategy.parse(given))}
    read = sorted(shown_by)
    signals = {f"signals {i}": given for i, given in enumerate(params)}

    def compute(root: Panel) -> Panel:
        known = with_indicators(ranked(root, read), read)
        conditions = conditions_by_params(known, strategy, params)
        ranks = {name: known[name] for name in read if is_rank(name)}
        return root.with_columns({**ranks, **dict(zip(signals, conditions, strict=True))})

    root = _root(universe)
    rng = np.random.default_rng(0)
    whole = compute(root)
    found = leaks(compute, root, whole, draw_cuts(root, whole, [*signals], CUTS, rng), rng)
    if not found:
        return None
    leak = found[0]
    what = "signals" if leak.output in signals else leak.output
    told = (
        f"{strategy.name} on {leak.asset}|{leak.timeframe} looks ahead: {what} at {leak.rows} "
        f"bars, the first of them {_day(leak.first_ts)}, depend on bars after {_day(leak.cut_us)} "
        "of this or other assets; a rank must not use anything after the close of its own bar"
    )
    return told, (signals | shown_by)[leak.output]


def _root(universe: Panel) -> Panel:
    """The bars, and the columns that do not follow from bars."""
    columns = {
        name: column
        for name, column in universe.columns.items()
        if name in OHLCV or not (is_given_by_bars(name) or is_rank(name))
    }
    return Panel(universe.timeframe, universe.assets, universe.offsets, universe.ts, columns)


def _day(stamp_us: int) -> str:
    return f"{utc_index(np.array([stamp_us]))[0]:%Y-%m-%d %H:%M}"
