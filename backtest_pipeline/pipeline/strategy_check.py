"""What `strategies check` tells of a strategy: look-ahead, speed, conditions, length of history."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from backtest_pipeline.market.cross_section import is_rank
from backtest_pipeline.market.features import build_features, is_given_by_bars, with_indicators
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.pipeline.look_ahead_guard import require_probed, with_invented_columns
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.simulation.orders import condition_bits, first_bars
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.rules.ranks import with_ranks
from backtest_pipeline.strategies.strategy import Params, Strategy, conditions_of

_TIMEFRAME = "1D"
_COMPARED = 250
"""Number of last bars on which shorter histories are compared."""
_HISTORIES = (300, 500, 1000)
_SIDES = ("long_entry", "long_exit", "short_entry", "short_exit")


@dataclass(frozen=True)
class StrategyCheck:
    """What was found.

    Attributes:
        rows: bars of the sample market that it was computed on.
        milliseconds: median time of three computations of them, features not included.
        true_bars: number of bars on which each condition is true, by condition.
        signals: number of unbroken stretches of such bars, by condition.
        changed_by_history: share of conditions on each asset's last 250 bars that differ from
            those of the full history, by number of bars that the history has.
        invented: columns of the user's own that it reads; here they had random values.
    """

    rows: int
    milliseconds: float
    true_bars: Mapping[str, int]
    signals: Mapping[str, int]
    changed_by_history: Mapping[int, float]
    invented: tuple[str, ...]


def check_strategy(strategy: Strategy[Any], params: Mapping[str, Any]) -> StrategyCheck:
    """Try a strategy on the daily bars of the sample market.

    Raises:
        InvalidInput: for invalid parameters.
        StrategyRefused: where its conditions fail, or are no flags.
        LooksAhead: where they depend on later bars.
    """
    parsed = strategy.parse(params)
    market = SampleMarket()
    own = own_columns_read(strategy, parsed.model_dump())
    bars = market.read(market.symbols()).panels[_TIMEFRAME]
    panel = with_invented_columns(build_features(bars), strategy, own)
    panel = with_indicators(panel, strategy.columns(parsed))
    conditions = conditions_of(strategy, panel, parsed)
    require_probed(None, strategy, [parsed.model_dump()])
    bits = condition_bits(conditions)
    flags = {name: np.asarray(getattr(conditions, name)) for name in _SIDES}
    firsts = first_bars(bits[np.newaxis], panel.offsets)[0]
    return StrategyCheck(
        rows=len(panel),
        milliseconds=_milliseconds(strategy, panel, parsed),
        true_bars={name: int(values.sum()) for name, values in flags.items()},
        signals={name: int(((firsts >> i) & 1).sum()) for i, name in enumerate(_SIDES)},
        changed_by_history={
            n: _changed(strategy, parsed, bars, panel, bits, n) for n in _HISTORIES
        },
        invented=_invented(panel),
    )


def _invented(panel: Panel) -> tuple[str, ...]:
    """Columns that neither bars nor ranks give."""
    return tuple(n for n in panel.columns if not (is_given_by_bars(n) or is_rank(n)))


def _milliseconds(strategy: Strategy[Any], panel: Panel, params: Params) -> float:
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        conditions_of(strategy, panel, params)
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


def _changed(
    strategy: Strategy[Any], params: Params, bars: Panel, panel: Panel, bits: np.ndarray, n: int
) -> float:
    """Share of conditions on the last bars that differ where history has `n` bars more."""
    last = panel.offsets[1:]
    compared = np.minimum(panel.lengths, _COMPARED)
    row = np.arange(len(panel))
    stops = last[panel.segment_of_row]
    is_late = row >= stops - compared[panel.segment_of_row] - n
    short = Panel(bars.timeframe, bars.assets, bars.offsets, bars.ts, {c: bars[c] for c in OHLCV})
    own = {name: panel[name][is_late] for name in _invented(panel)}
    later = build_features(short.take(is_late)).with_columns(own)
    later = with_ranks(later, strategy.columns(params))
    later = with_indicators(later, strategy.columns(params))
    found = condition_bits(conditions_of(strategy, later, params))
    tail = row >= stops - compared[panel.segment_of_row]
    differing = np.bitwise_count(bits[tail] ^ found[tail[is_late]])
    return float(differing.sum() / (len(_SIDES) * tail.sum()))
