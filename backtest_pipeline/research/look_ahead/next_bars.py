"""Look-ahead test with two futures: what is decided must be the same before a rise and a fall.

A signal that a later bar suppresses is not there to be tested. So the bars after many instants are
replaced by rising and by falling ones: the signals up to each instant must be the same,
and so must the stops and sizes of a strategy that gives them by an expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.research.look_ahead.other_futures import is_flag
from backtest_pipeline.simulation.windows import conditions_by_params, expressions_by_params
from backtest_pipeline.strategies.strategy import Strategy

PAST, FUTURE = 500, 40
"""Bars before each instant, enough for warm-ups, and bars after it that are replaced."""
_ROWS = 400_000  # of all histories and parameter sets together
_FEWEST, _MOST = 32, 300
_PRICES = ("open", "high", "low", "close")


def changed_by_next_bars(
    panel: Panel, strategy: Strategy[Any], params: Sequence[Mapping[str, Any]], asset: str
) -> tuple[int, int]:
    """At how many instants what was decided so far differs between a rise and a fall after it.

    That is signals, and stops and sizes by expression.

    Args:
        panel: bars, and features that are not computed from them here.
        strategy: strategy to test.
        params: parameter sets to test.
        asset: asset to test on; the instants are spread evenly over its bars.

    Returns:
        `(n_changed, n_tested)`.
    """
    rows = panel.rows_of(asset)
    length = PAST + FUTURE
    most = int(np.clip(_ROWS // (2 * length * max(len(params), 1)), _FEWEST, _MOST))
    last = rows.stop - FUTURE - 1
    if not params or last <= rows.start:
        return 0, 0
    instants = np.unique(np.linspace(rows.start, last, most).astype(int))
    windows = [slice(max(rows.start, at - PAST), at + FUTURE + 1) for at in instants.tolist()]
    histories = _read_columns(panel, strategy, params).windows(windows)
    at = histories.offsets[1:] - FUTURE - 1
    futures = [_with_future(histories, at, up) for up in (1, -1)]
    rising, falling = (conditions_by_params(future, strategy, params) for future in futures)
    high, low = (expressions_by_params(future, strategy, params) for future in futures)
    otherwise = (high != low) & ~(np.isnan(high) & np.isnan(low))
    known = np.arange(len(histories)) <= at[histories.segment_of_row]
    differs = ((rising != falling).any(axis=0) | otherwise.any(axis=0)) & known
    return len(np.unique(histories.segment_of_row[differs])), len(instants)


def _read_columns(
    panel: Panel, strategy: Strategy[Any], params: Sequence[Mapping[str, Any]]
) -> Panel:
    read = {name for given in params for name in strategy.columns(strategy.parse(given))}
    columns = {name: panel[name] for name in panel.columns if name in read | set(OHLCV)}
    return Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, columns)


def _with_future(histories: Panel, at: np.ndarray, up: int) -> Panel:
    """Each history with rising (1) or falling (-1) bars after its instant, and other features."""
    step = np.arange(1, FUTURE + 1)
    after = (at[:, None] + step).ravel()
    close = np.outer(histories["close"][at], np.exp(0.03 * up * step))
    open_ = close * np.exp(-0.02 * up)
    bars = {
        "open": open_,
        "close": close,
        "high": np.maximum(open_, close) * 1.001,
        "low": np.minimum(open_, close) * 0.999,
    }
    columns = {}
    for name, column in histories.columns.items():
        columns[name] = changed = column.copy()
        if name in _PRICES:
            changed[after] = bars[name].ravel()
        elif is_flag(column):
            changed[after] = up > 0
        else:
            spread = np.nanstd(column) if np.isfinite(column).any() else 0.0
            changed[after] = (column[at][:, None] + up * spread * (1 + step / FUTURE)).ravel()
    return histories.with_columns(columns)
