"""Look-ahead tests: whether features and signals at a bar's close depend on later bars.

Two tests that complement each other. The first replaces the future of the root bars, recomputes
everything from them, and compares bit for bit: it finds a leak anywhere in the chain. But signals
are rare, and a cut that misses them shows nothing. So the second cuts a strategy's inputs right
after each of its signals, and checks that the signal is still there.
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
"""Raise it when the tests change: strategies that were tested before are tested again."""
_PROBES = 24
_FIRST_BARS = 8  # a warm-up filled with later values shows here, whatever its length
_NEVER = np.iinfo(np.int64).min

Chain = Callable[[Panel], Panel]
"""Takes root bars; returns everything computed from them, one column each, for the same assets."""


@dataclass(frozen=True)
class Leak:
    """An output up to a cut that changes with the bars after it.

    Attributes:
        asset, timeframe: asset and timeframe of the output.
        output: its column; `ts` if bars appear or vanish.
        future: the future that changed it, one of FUTURES.
        cut_us: the last instant that both histories share, microseconds since 1970 UTC.
        rows: number of rows up to the cut that differ.
        first_ts: stamp of the first of them, microseconds since 1970 UTC.
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
    """Outputs up to each cut that depend on later bars, compared bit for bit.

    A bar of a longer timeframe that is still open at the cut may be missing: only rows stamped no
    later than the asset's last root bar at the cut are compared.

    Args:
        compute: the computation under test.
        root: bars as the source has them.
        whole: `compute(root)`.
        cuts: stamps on the grid of the root bars, microseconds since 1970 UTC.
        rng: random numbers for the other futures.
    """
    leaked = []
    for cut in cuts:
        known = _known_until(root, cut)
        before = _up_to(whole, known)
        for future, changed in other_futures(root, cut, rng):
            differing = differences(before, _up_to(compute(changed), known))
            leaked += [
                Leak(asset, whole.timeframe.name, output, future, cut, rows, first)
                for asset, output, rows, first in differing
            ]
    return leaked


def draw_cuts(
    root: Panel, whole: Panel, signals: Sequence[str], n: int, rng: np.random.Generator
) -> list[int]:
    """Random cuts, in turn early (in the warm-up), anywhere (mid-period too), and at a signal.

    Args:
        root: bars as the source has them.
        whole: everything computed from them.
        signals: columns of `whole` that are non-zero where there is a signal.
        n: number of cuts.
        rng: random numbers.

    Returns:
        Stamps of root bars, microseconds since 1970 UTC; none if no asset has two bars.
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
            # Uniform in the logarithm: most warm-ups are short.
            choice = bars[[int(len(bars) ** rng.random()) - 1]]
        elif k % 3 == 2 and given.any():
            choice = bars[given]
        cuts.append(int(rng.choice(choice)))
    return cuts


def differences(one: Panel, other: Panel) -> Iterator[tuple[str, str, int, int]]:
    """Differences, to the bit, between two panels of the same assets.

    An asset with rows in only one panel differs in `ts`; its other columns are not compared.

    Yields:
        `(asset, column, number of rows that differ, stamp of the first)`.
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
    """Last stamp of each asset up to the cut, int64 `(n_assets,)`."""
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
    """How many of a strategy's signals change when the bars after them are removed.

    The tested signals are spread evenly over the asset's history; each is recomputed on bars that
    end with it, all at once.

    Args:
        panel: bars, and features that are not computed from them here.
        strategy, params: strategy and parameters to test.
        asset: asset to test on.

    Returns:
        `(n_changed, n_tested)`.
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
    """Raise LooksAhead if a strategy's signals up to a bar depend on later bars.

    Look-ahead makes a strategy look as good out of sample as in sample, so comparing the two
    cannot reveal it. For the last parameter set, the bars after some of the signals are removed:
    each signal must still be there. For all sets, the bars after instants spread over the history
    are replaced by a rally and by a sell-off: that also reveals entries that later bars suppress.

    Args:
        panel: bars, and features that are not computed from them here.
        strategy: strategy to test.
        params: parameter sets to test.
        asset: asset to test on.

    Raises:
        LooksAhead: with the number of signals or instants that changed.
    """
    where = f"{strategy.name} on {asset}|{panel.timeframe.name}"
    changed, probed = changed_signals(panel, strategy, params[-1], asset) if params else (0, 0)
    if changed:
        raise LooksAhead(
            f"{where} looks ahead: {changed} of {probed} signals change when the bars after them "
            "are removed; a signal must not use anything after the close of its own bar"
        )
    changed, probed = changed_by_next_bars(panel, strategy, params, asset)
    if changed:
        raise LooksAhead(
            f"{where} looks ahead: at {changed} of {probed} tested bars, signals, stops or sizes "
            "up to that bar depend on whether later prices rise or fall; none must use anything "
            "after the close of its own bar, not even to stay out"
        )
