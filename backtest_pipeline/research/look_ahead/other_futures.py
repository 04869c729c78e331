"""Alternative futures for look-ahead tests: histories that share the bars up to a cut.

Nothing at or before the cut changes; the bars after it are removed or replaced.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.validation import base_length_us

FUTURES = ("removed", "scrambled", "regrown")
_PRICES = ("open", "high", "low", "close")
_WIDEST = 1.5  # largest log factor: prices from about a fifth to about five times the original
_MORE = 10  # fewest bars that a regrown future has beyond its old end


def other_futures(
    root: Panel, cut_us: int, rng: np.random.Generator
) -> Iterator[tuple[str, Panel]]:
    """The panel with each of FUTURES after the cut.

    - removed: no bars after the cut;
    - scrambled: the bars after it in random order, with prices and volumes scaled at random;
    - regrown: half of the bars after it dropped, and random bars added beyond the asset's end.

    Args:
        root: OHLCV bars on the grid of their timeframe.
        cut_us: a stamp on that grid; bars up to and including it are unchanged.
        rng: random numbers.
    """
    future = root.ts > cut_us
    yield "removed", root.take(~future)
    yield "scrambled", _scrambled(root, future, rng)
    yield "regrown", _regrown(root, future, cut_us, rng)


def is_flag(column: np.ndarray) -> bool:
    """Whether a column holds true and false, or 0 and 1 alone, so that its future must too.

    Examples:
        >>> is_flag(np.array([0.0, 1.0, np.nan])), is_flag(np.array([0.0, 2.0]))
        (True, False)
    """
    if column.dtype == bool:
        return True
    return bool(np.all((column == 0) | (column == 1) | np.isnan(column)))


def _scrambled(root: Panel, future: np.ndarray, rng: np.random.Generator) -> Panel:
    rows = np.flatnonzero(future)
    shuffled = rows[np.lexsort((rng.random(len(rows)), root.segment_of_row[rows]))]
    price, volume = np.exp(rng.uniform(-_WIDEST, _WIDEST, (2, len(rows))))
    columns = {}
    for name, column in root.columns.items():
        columns[name] = column.copy()
        scale = 1 if is_flag(column) else price if name in _PRICES else volume
        columns[name][rows] = column[shuffled] * scale
    return root.with_columns(columns)


def _regrown(root: Panel, future: np.ndarray, cut_us: int, rng: np.random.Generator) -> Panel:
    kept = root.take(~future | (rng.random(len(root)) < 0.5))
    length = base_length_us(root.timeframe)
    rows, ts, counts = [], [], []
    for start, stop in zip(root.offsets[:-1].tolist(), root.offsets[1:].tolist(), strict=True):
        n = int(future[start:stop].sum()) // 2 + _MORE if stop > start else 0
        counts.append(n)
        if n:
            rows.append(rng.integers(start, stop, n))
            ts.append(max(int(root.ts[stop - 1]), cut_us) + length * np.arange(1, n + 1))
    drawn = np.concatenate(rows) if rows else np.empty(0, np.int64)
    grown = Panel(
        root.timeframe,
        root.assets,
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        np.concatenate(ts) if ts else np.empty(0, np.int64),
        {name: column[drawn] for name, column in root.columns.items()},
    )
    return Panel.join(root.timeframe, root.assets, [kept, grown], list(root.columns))
