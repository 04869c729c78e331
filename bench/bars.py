"""Daily bars of many assets as a file, real ones where the test data is there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest_pipeline.market.timeframes import DAY_US

_DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = Path(os.environ.get("BACKTEST_TEST_DATA", _DATA)) / "bybit_perp_daily.parquet"
_SYNTHETIC_ASSETS, _SYNTHETIC_DAYS = 149, 1_410  # rows of the real file
_FIRST_DAY = 18_000  # days since 1970


def daily_bars(*, quick: bool) -> tuple[pa.Table, str]:
    """Bars of the universe and what they are; a few of few assets for a quick run."""
    if not quick and REAL.is_file():
        return pq.read_table(REAL), f"`{REAL.name}`"
    if quick:
        return random_bars(4, 400), "synthetic"
    return random_bars(_SYNTHETIC_ASSETS, _SYNTHETIC_DAYS), "synthetic"


def write_bars(bars: pa.Table, path: Path, *, days_left_out: int = 0) -> None:
    """Write the bars as a source reads them, without so many of the last days."""
    ts = bars["ts"].to_numpy()
    kept = ts <= ts.max() - np.timedelta64(days_left_out, "D")
    pq.write_table(bars.filter(pa.array(kept)), path)


def random_bars(n_assets: int, n_days: int, seed: int = 7) -> pa.Table:
    """Random walks; columns symbol, ts (open, UTC), open, high, low, close, volume."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.03, (n_assets, n_days)), axis=1))
    open_ = np.concatenate([np.full((n_assets, 1), 100.0), close[:, :-1]], axis=1)
    high = np.maximum(open_, close) * (1 + random.uniform(0, 0.02, close.shape))
    low = np.minimum(open_, close) * (1 - random.uniform(0, 0.02, close.shape))
    days = np.tile(np.arange(_FIRST_DAY, _FIRST_DAY + n_days) * DAY_US, n_assets)
    return pa.table(
        {
            "symbol": np.repeat([f"R{i:03d}USDT" for i in range(n_assets)], n_days),
            "ts": pa.array(days, pa.timestamp("us", "UTC")),
            "open": open_.ravel(),
            "high": high.ravel(),
            "low": low.ravel(),
            "close": close.ravel(),
            "volume": random.uniform(1e3, 1e6, close.size),
        }
    )
