"""Rows of an external feature table that can be traded on.

Its timestamps and features are used as they are. A row with an impossible bar would still cause
wrong trades: it is dropped and counted by the same rules as bars from files.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.price_levels import lone_rows
from backtest_pipeline.market.validation import Reason, RowIssue, bar_defects, tally


def usable_rows(raw: Panel, now_us: int) -> tuple[Panel, tuple[RowIssue, ...]]:
    """Drop rows with defective bars; returns the rest and the issues found.

    Infinite numbers become NaN. Rows dropped just before a row count in its `gap_bars`, so a trade
    entered after such a gap can be flagged.

    Args:
        raw: OHLCV, gap_bars and any other float64 columns; sorted, without duplicates.
        now_us: when the rows were read, microseconds since 1970 UTC; a bar that closes later is
            unfinished.
    """
    segment = raw.segment_of_row
    sound = np.ones(len(raw), bool)
    issues: list[RowIssue] = []
    defects = (
        *bar_defects(raw),
        (Reason.UNFINISHED_BAR, raw.ts > now_us),
        (Reason.PRICE_JUMP, lone_rows(raw)),
    )
    for reason, defective in defects:
        bad = defective & sound
        sound &= ~bad
        issues += tally(raw, reason, segment[bad], raw.ts[bad])
    unknown = sound & ~np.isfinite(raw["volume"])
    issues += tally(raw, Reason.MISSING_VOLUME, segment[unknown], raw.ts[unknown])
    zero = sound & (raw["volume"] == 0)
    issues += tally(raw, Reason.ZERO_VOLUME, segment[zero], raw.ts[zero])
    dropped = _dropped_before(raw, sound)
    columns = {n: np.where(np.isfinite(c), c, np.nan) for n, c in raw.columns.items()}
    known_gap = np.where(np.isnan(columns["gap_bars"]), 0.0, columns["gap_bars"])
    columns["gap_bars"] = np.where(dropped > 0, known_gap + dropped, columns["gap_bars"])
    rows = Panel(raw.timeframe, raw.assets, raw.offsets, raw.ts, columns)
    return rows.take(sound), tuple(issues)


def _dropped_before(raw: Panel, sound: np.ndarray) -> np.ndarray:
    """Number of rows dropped between each sound row and the sound row before it, int64 `(n_rows,)`.

    0 for an asset's first sound row: nothing was traded before it.
    """
    at = np.flatnonzero(sound)
    between = np.zeros(len(raw), np.int64)
    if len(at):
        asset = raw.segment_of_row[at]
        between[at[1:]] = np.where(asset[1:] == asset[:-1], np.diff(at) - 1, 0)
    return between
