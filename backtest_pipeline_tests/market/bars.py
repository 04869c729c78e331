"""Small panels of bars for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, timeframe

Row = tuple[float, float, float, float, float]
GOOD: Row = (10.0, 12.0, 9.0, 11.0, 100.0)
FAR_FUTURE_US = 2**60


def us(text: str) -> int:
    """An ISO date or time, UTC, as microseconds."""
    return int(np.datetime64(text, "us").astype(np.int64))


def close_stamp(start: str | int, tf: str = "1D") -> int:
    """Close stamp of the fixed-length bar that begins at `start`."""
    begin = us(start) if isinstance(start, str) else start
    length = timeframe(tf).length_us
    assert length is not None
    return begin + length - CLOSE_STAMP_US


def panel(tf: str, rows: Mapping[str, Sequence[tuple[int, Row]]]) -> Panel:
    """A panel of `(stamp, OHLCV)` rows for each asset, in the order given."""
    lengths = [len(asset_rows) for asset_rows in rows.values()]
    flat = [row for asset_rows in rows.values() for row in asset_rows]
    values = np.array([bar for _, bar in flat], np.float64).reshape(len(flat), len(OHLCV))
    return Panel(
        timeframe=timeframe(tf),
        assets=tuple(rows),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        ts=np.array([ts for ts, _ in flat], np.int64),
        columns={name: values[:, i].copy() for i, name in enumerate(OHLCV)},
    )


def same_bits(left: Panel, right: Panel) -> bool:
    """Whether two panels hold the same rows, bit for bit."""
    return (
        left.timeframe == right.timeframe
        and left.assets == right.assets
        and left.offsets.tolist() == right.offsets.tolist()
        and left.ts.tobytes() == right.ts.tobytes()
        and left.columns.keys() == right.columns.keys()
        and all(left[name].tobytes() == right[name].tobytes() for name in left.columns)
    )
