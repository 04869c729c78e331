"""Files of three bars, and what has to be read of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backtest_pipeline.sources.files import FileBars
from backtest_pipeline_tests.market.bars import close_stamp

DAYS = [f"2024-01-0{day}" for day in (1, 2, 3)]
DAY_MS = [1704067200000 + i * 86_400_000 for i in range(3)]
HOUR_MS = [1704067200000 + i * 3_600_000 for i in range(3)]
OPEN, HIGH, LOW, CLOSE, VOLUME = 10.0, 12.0, 9.0, 11.0, 100.5
ROW = f"{OPEN},{HIGH},{LOW},{CLOSE},{VOLUME}"
HOURS = [f"2024-01-01T0{hour}:00" for hour in range(3)]


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def require_bars(
    path: Path, symbol: str, tf: str, starts: list[str], volume: float | None = VOLUME
) -> None:
    """The path has one asset at one timeframe, with these bars and the numbers of `ROW`."""
    bars = FileBars(path).read()
    assert {name: panel.assets for name, panel in bars.panels.items()} == {tf: (symbol,)}
    frame = bars.panels[tf].frame(symbol)
    assert bars.panels[tf].ts.tolist() == [close_stamp(start, tf) for start in starts]
    assert frame[["open", "high", "low", "close"]].to_numpy().tolist() == [
        [OPEN, HIGH, LOW, CLOSE]
    ] * len(starts)
    if volume is None:
        assert np.isnan(frame["volume"].to_numpy()).all()
    else:
        assert frame["volume"].tolist() == [volume] * len(starts)
    assert bars.unread == ()
