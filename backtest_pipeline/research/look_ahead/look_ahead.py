"""Whether what is known at a bar's close uses bars that come after it.

Two probes that need each other. Other futures of the ROOT bars, sent through everything that is
computed of them, show a leak anywhere in the chain, to the bit; but a signal is rare, and a cut
that misses it shows nothing. So each strategy is asked besides whether its own signals are still
there when its inputs end with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import LooksAhead
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.look_ahead.next_bars import changed_by_next_bars
from backtest_pipeline.research.look_ahead.other_futures import other_futures
from backtest_pipeline.simulation.windows import conditions_by_params
from backtest_pipeline.strategies.strategy import Strategy

LOOK_AHEAD_VERSION = 1
"""Raise it when the probe looks elsewhere or closer: what was probed before is probed again."""
_PROBES = 24
_FIRST_BARS = 8  # a warm-up that is filled with later values shows here, however long it is
_NEVER = np.iinfo(np.int64).min

Chain = Callable[[Panel], Panel]
"""From root bars to all that is computed of them, one column each, of the same assets."""


@dataclass(frozen=True)
class Leak:
    """An output that another future changes before the cut.

    Attributes:
        asset, timeframe: where.
        output: the column; `ts` where bars come or go.
        future: which other future changed it, see `other_futures`.
        cut_us: the last instant that both histories share, microseconds since 1970 UTC.
        rows: how many rows up to the cut differ.
        first_ts: the first of them.
    """

    asset: str
    timeframe: str
    output: str
    future: str
    cut_us: int
    rows: int
    first_ts: int


def leaks(
    compute: Chain, root: Panel, whole: Panel, cuts: Sequence[int], rng: np.random.Generator
) -> list[Leak]:
    """Outputs up to each cut that depend on what comes after it, compared bit for bit.

    A bar of a longer timeframe that the cut lies in may not be there yet; what counts is rows
    that are stamped no later than the asset's last root bar at the cut.

    Args:
        compute: the chain.
        root: bars as the source gives them.
        whole: `compute(root)`.
        cuts: stamps of the root's grid.
        rng: what other futures are drawn from.
    """
    found = []
    for cut in cuts:
        known = _known_until(root, cut)
        before = _up_to(whole, known)
        for future, changed in other_futures(root, cut, rng):
            differing = differences(before, _up_to(compute(changed), known))
            found += [
                Leak(asset, whole.timeframe.name, output, future, cut, rows, first)
                for asset, output, rows, first in differing
            ]
    return found


def draw_cuts(
    root: Panel, whole: Panel, signals: Sequence[str], n: int, rng: np.random.Generator
) -> list[int]:
    """Where to cut: in turn early (warm-ups), anywhere (in mid-period too), and at a signal.

    Args:
        root: bars as the source gives them.
        whole: what is computed of them.
        signals: columns of `whole` that are not zero where there is a signal.
        n: how many cuts.
        rng: what they are drawn from.
    """
    listed = np.flatnonzero(root.lengths > 1)
    if len(listed) == 0:
        return []
    cuts = []
    for k in range(n):
        asset = int(listed[(k // 3) % len(listed)])
        anywhere = root.ts[root.offsets[asset] : root.offsets[asset + 1] - 1]
        computed = slice(int(whole.offsets[asset]), int(whole.offsets[asset + 1]))
        bars = whole.ts[computed]
        given = np.logical_or.reduce([whole[name][computed] != 0 for name in signals] or [[]])
        choice = anywhere
        if k == 0 and len(bars):
            choice = bars[:_FIRST_BARS]
        elif k % 3 == 0 and len(bars):
            # Evenly over the orders of magnitude: most warm-ups are short.
            choice = bars[[int(len(bars) ** rng.random()) - 1]]
        elif k % 3 == 2 and given.any():
            choice = bars[given]
        cuts.append(int(rng.choice(choice)))
    return cuts


def differences(one: Panel, other: Panel) -> Iterator[tuple[str, str, int, int]]:
    """Where two panels of the same assets are not equal to the bit: asset, column, rows, first.

    Rows that are in one of them only differ in `ts`, and their asset's columns are not compared.
    """
    same = [
        np.array_equal(one.ts[one.rows_of(asset)], other.ts[other.rows_of(asset)])
        for asset in one.assets
    ]
    for asset in np.array(one.assets, object)[~np.array(same, bool)]:
        odd = np.setxor1d(one.ts[one.rows_of(asset)], other.ts[other.rows_of(asset)])
        yield asset, "ts", len(odd), int(odd[0])
    alike = np.array(same, bool)
    one, other = (panel.take(alike[panel.segment_of_row]) for panel in (one, other))
    segment = one.segment_of_row
    for name in one.columns:
        differs = np.flatnonzero(_differ(one[name], other[name]))
        for i in np.unique(segment[differs]).tolist():
            rows = differs[segment[differs] == i]
            yield one.assets[i], name, len(rows), int(one.ts[rows[0]])


def _differ(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype != y.dtype:
        return np.ones(len(x), bool)
    if x.dtype != np.float64:
        return x != y
    bits = np.ascontiguousarray(x).view(np.int64) != np.ascontiguousarray(y).view(np.int64)
    return bits & ~(np.isnan(x) & np.isnan(y))


def _known_until(root: Panel, cut_us: int) -> np.ndarray:
    """Each asset's last stamp that is no later than the cut."""
    return np.array(
        [
            root.ts[end - 1] if end > start else _NEVER
            for start, stop in zip(root.offsets, root.offsets[1:], strict=False)
            for end in [start + np.searchsorted(root.ts[start:stop], cut_us, side="right")]
        ],
        np.int64,
    )


def _up_to(panel: Panel, known: np.ndarray) -> Panel:
    return panel.take(panel.ts <= known[panel.segment_of_row])


def changed_signals(
    panel: Panel, strategy: Strategy[Any], params: Mapping[str, Any], asset: str
) -> tuple[int, int]:
    """How many of a strategy's signals change when the bars after them are taken away.

    The probes are spread evenly over the asset's signals; each history ends with the bar of its
    signal, and all are computed at once.

    Args:
        panel: bars, with the features that are not computed from them here.
        strategy, params: what to probe.
        asset: on whose bars.

    Returns:
        `(changed, probed)`.
    """
    rows = panel.rows_of(asset)
    whole = conditions_by_params(panel.select([asset]), strategy, [params])[0]
    given = np.flatnonzero(whole)
    if len(given) == 0:
        return 0, 0
    probes = given[np.unique(np.linspace(0, len(given) - 1, _PROBES).astype(int))]
    histories = panel.windows([slice(rows.start, rows.start + int(at) + 1) for at in probes])
    known_then = conditions_by_params(histories, strategy, [params])[0][histories.offsets[1:] - 1]
    return int(np.sum(known_then != whole[probes])), len(probes)


def require_no_look_ahead(
    panel: Panel, strategy: Strategy[Any], params: Sequence[Mapping[str, Any]], asset: str
) -> None:
    """Give a strategy other futures: what it says up to a bar must not depend on what follows.

    A strategy that looks ahead looks as good out of sample as in sample, so that no comparison
    of the two shows it. Under the last set of parameters the bars after some of the signals are
    taken away: each must still be there. Under all sets the bars after instants that are spread
    over the history rise or fall instead, which shows entries that later bars forbid as well.

    Args:
        panel: bars, with the features that are not computed from them here.
        strategy: what to probe.
        params: the sets of parameters that were chosen.
        asset: on whose bars.

    Raises:
        LooksAhead: with the share of the probed signals or instants that changed.
    """
    where = f"{strategy.name} on {asset}|{panel.timeframe.name}"
    changed, probed = changed_signals(panel, strategy, params[-1], asset) if params else (0, 0)
    if changed:
        raise LooksAhead(
            f"{where}: {changed} of {probed} signals change when the bars after them are taken "
            "away; a signal may use nothing later than its own bar's close"
        )
    changed, probed = changed_by_next_bars(panel, strategy, params, asset)
    if changed:
        raise LooksAhead(
            f"{where}: up to {changed} of {probed} instants signals differ between rising and "
            "falling bars after them; a signal may use nothing later than its own bar's close, not "
            "even to stay away"
        )
