"""Values that become known at some instant, on the bars at whose close they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.row_keys import row_keys


@dataclass(frozen=True)
class TimedValues:
    """Rows of values of many assets, one asset after another, each row known from an instant on.

    Attributes:
        assets: symbols, one per segment.
        offsets: int64 `(n_assets + 1,)`, first row of each segment, then the number of rows.
        known_at: int64 `(n_rows,)`, ascending within a segment, microseconds since 1970 UTC. Of
            rows with the same instant the last one counts.
        columns: float64 `(n_rows,)` by name; NaN where a row has no value.
    """

    assets: tuple[str, ...]
    offsets: np.ndarray
    known_at: np.ndarray
    columns: Mapping[str, np.ndarray]


def rows_as_of(values: TimedValues, bars: Panel, max_age_us: int | None = None) -> np.ndarray:
    """For each bar the last row that is known at its close, int64 `(n_bars,)`; -1 where none is.

    Args:
        values: the rows.
        bars: any panel; its assets are looked up by symbol.
        max_age_us: the longest time from the instant of a row to the close of a bar that still
            reads it; None for no limit.
    """
    if not len(bars) or not len(values.known_at):
        return np.full(len(bars), -1)
    # All instants before the first bar are one, and so are all after the last bar.
    before, after = int(bars.ts.min()) - 1, int(bars.ts.max()) + 1
    segment = np.repeat(np.arange(len(values.assets)), np.diff(values.offsets))
    place = {asset: i for i, asset in enumerate(values.assets)}
    of_asset = np.array([place.get(asset, -1) for asset in bars.assets])[bars.segment_of_row]
    keys, closes = row_keys((segment, np.clip(values.known_at, before, after)), (of_asset, bars.ts))
    rows = np.searchsorted(keys, closes, side="right") - 1
    known = (of_asset >= 0) & (rows >= values.offsets[of_asset])
    if max_age_us is not None:
        known &= bars.ts - values.known_at[rows] <= max_age_us
    return np.where(known, rows, -1)


def values_as_of(
    values: TimedValues, bars: Panel, max_age_us: int | None = None
) -> dict[str, np.ndarray]:
    """Each column at each bar, float64 `(n_bars,)`; NaN where no row is known. As `rows_as_of`."""
    rows = rows_as_of(values, bars, max_age_us)
    return {
        name: np.where(rows >= 0, column[rows], np.nan)
        if len(column)
        else np.full(len(bars), np.nan)
        for name, column in values.columns.items()
    }
