"""Files of scores, and a strategy that reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.own_strategies import own_strategies, write

SCORED = """
name = "scored"
long_entry = "score > bound"
long_exit = "score < 1 - bound or not calm"

[columns]
score = "number"
calm = "flag"

[params]
bound = { default = 0.6, min = 0.5, max = 0.9, grid = [0.55, 0.6, 0.65, 0.7] }

[presets.scored_60]
"""


def scores(
    assets: Iterable[str] = "ABC", n: int = 400, seed: int = 0, last: str = "2025-12-31"
) -> pd.DataFrame:
    """Random scores of the days up to one, known at each day's end."""
    rng = np.random.default_rng(seed)
    days = pd.date_range(end=last, periods=n, freq="D", tz="UTC")
    ts = days + pd.Timedelta(hours=23, minutes=59, seconds=59)
    frames = [
        pd.DataFrame(
            {
                "symbol": asset,
                "ts": ts,
                "score": rng.random(n),
                "calm": rng.random(n) < 0.9,
                "other": rng.normal(size=n),
            }
        )
        for asset in assets
    ]
    return pd.concat(frames, ignore_index=True)


@contextmanager
def with_columns(
    workspace: Workspace, folder: Path, files: dict[str, pd.DataFrame]
) -> Iterator[tuple[Workspace, Callable[[str, pd.DataFrame], Path]]]:
    """The store with these files and the strategy SCORED; also what writes a file."""
    columns = folder / "columns"
    columns.mkdir(exist_ok=True)

    def put(name: str, frame: pd.DataFrame) -> Path:
        path = columns / name
        if path.suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, index=False)
        return path

    for name, frame in files.items():
        put(name, frame)
    write(folder / "strategies", "scored.toml", SCORED)
    with own_strategies(folder / "strategies"):
        yield replace(workspace, columns_folder=columns), put
