"""Small markets and signals for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe

EVENT_SHARES = (0, 0, 0, 0, 1, 2, 4, 8, 6, 9, 5, 3, 12, 15)


def bars_of(
    opens: Sequence[float] | np.ndarray,
    closes: Sequence[float] | None = None,
    highs: Sequence[float] | None = None,
    lows: Sequence[float] | None = None,
    freq: str = "D",
) -> pd.DataFrame:
    """Bars from 2024 on; what is not given follows from the opens."""
    open_ = np.asarray(opens, np.float64)
    close = open_ if closes is None else np.asarray(closes, np.float64)
    return pd.DataFrame(
        {
            "open": open_,
            "high": np.maximum(open_, close) if highs is None else np.asarray(highs, np.float64),
            "low": np.minimum(open_, close) if lows is None else np.asarray(lows, np.float64),
            "close": close,
        },
        index=pd.date_range("2024-01-01", periods=len(open_), freq=freq, tz="UTC"),
    )


def flags(bars: pd.DataFrame, *positions: int) -> pd.Series:
    """True at these positions."""
    signal = pd.Series(False, bars.index)
    signal.iloc[list(positions)] = True
    return signal


def random_panel(
    rng: np.random.Generator,
    lengths: Sequence[int],
    volatility: float = 0.03,
    timeframe_name: str = "1D",
    holes: float = 0.0,
) -> Panel:
    """Random walks; a share `holes` of the bars is missing."""
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    rows = int(offsets[-1])
    tf = timeframe(timeframe_name)
    step = tf.length_us
    assert step is not None
    skipped = 1 + (rng.random(rows) < holes) * rng.integers(1, 5, rows)
    start = tf.period_bounds(np.array([19_723 * DAY_US]))[0][0]
    ts = [start + step * np.cumsum(skipped[a:b]) - CLOSE_STAMP_US for a, b in _pairs(offsets)]
    close = np.concatenate(
        [np.empty(0)]
        + [100 * np.exp(np.cumsum(rng.normal(0, volatility, n))) for n in np.diff(offsets)]
    )
    open_ = close * np.exp(rng.normal(0, volatility / 2, rows))
    wick = np.exp(np.abs(rng.normal(0, volatility / 3, (2, rows))))
    return Panel(
        tf,
        tuple(f"A{i}" for i in range(len(lengths))),
        offsets,
        np.concatenate([np.empty(0, np.int64), *ts]).astype(np.int64),
        {
            "open": open_,
            "high": np.maximum(open_, close) * wick[0],
            "low": np.minimum(open_, close) / wick[1],
            "close": close,
        },
    )


def random_market(
    rng: np.random.Generator, lengths: Sequence[int], volatility: float, holes: float
) -> tuple[Panel, Panel]:
    """Days, and the four-hour bars that they are made of; a share `holes` of both is missing."""
    per_day = 6
    finer = random_panel(rng, [per_day * n for n in lengths], volatility / per_day**0.5, "4H")
    open_, high, low, close = (
        finer[name].reshape(-1, per_day) for name in ("open", "high", "low", "close")
    )
    days = Panel(
        timeframe("1D"),
        finer.assets,
        finer.offsets // per_day,
        finer.ts[per_day - 1 :: per_day],
        {
            "open": open_[:, 0],
            "high": high.max(axis=1),
            "low": low.min(axis=1),
            "close": close[:, -1],
        },
    )
    return days.take(rng.random(len(days)) >= holes), finer.take(rng.random(len(finer)) >= holes)


def random_rates(rng: np.random.Generator, panel: Panel, deviation: float) -> dict[str, pd.Series]:
    """Funding each eight hours, stamped a few milliseconds late or early."""
    period_us = DAY_US // 3
    first = int(panel.ts.min(initial=19_723 * DAY_US)) // DAY_US * DAY_US
    instants = np.arange(first, int(panel.ts.max(initial=first)) + DAY_US, period_us)
    return {
        name: pd.Series(
            rng.normal(0, deviation, len(instants)),
            utc_index(instants + 1000 * rng.integers(-40, 40, len(instants))),
        )
        for name in panel.assets
    }


def random_events(rng: np.random.Generator, n_runs: int, panel: Panel) -> np.ndarray:
    """Every combination of the four signals, contradictory ones included."""
    return rng.choice(np.array(EVENT_SHARES, np.uint8), (n_runs, len(panel)))


def real_bars(test_data: Path, file: str, symbol: str) -> pd.DataFrame:
    """One symbol of the real data, indexed by its open stamps."""
    frame = pd.read_parquet(test_data / file, filters=[("symbol", "==", symbol)])
    return pd.DataFrame(frame.set_index("ts"), columns=["open", "high", "low", "close", "volume"])


def google(test_data: Path) -> pd.DataFrame:
    """The daily bars of GOOG that backtesting.py ships."""
    frame = pd.read_csv(
        test_data / "reference" / "backtestingpy_GOOG.csv", index_col=0, parse_dates=True
    )
    return frame.rename(columns=str.lower).tz_localize("UTC")


def average_crosses(bars: pd.DataFrame, fast: int, slow: int) -> tuple[pd.Series, pd.Series]:
    """Where the fast simple average of closes crosses the slow one upwards, and downwards."""
    close = pd.Series(bars["close"])
    above = np.asarray(close.rolling(fast).mean()) - np.asarray(close.rolling(slow).mean())
    before = np.concatenate(([np.nan], above[:-1]))
    up, down = (above > 0) & (before < 0), (above < 0) & (before > 0)
    return pd.Series(up, bars.index), pd.Series(down, bars.index)


def _pairs(offsets: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
