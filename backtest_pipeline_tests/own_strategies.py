"""Strategies as a user would write them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from backtest_pipeline.strategies.known_strategies import use_folder

DIP = '''"""Buy a close far below its average."""

from pydantic import Field

from backtest_pipeline.strategies import Params, Strategy, per_asset


class Dip(Params):
    z: float = Field(default=2.0, gt=0)
    length: int = Field(default=20, ge=2, le=500)


def rule(features, params):
    close = features["close"]
    mean = close.rolling(params.length).mean()
    low = mean - params.z * close.rolling(params.length).std()
    return {"long_entry": close < low, "long_exit": close > mean}


STRATEGY = Strategy(
    name="dip",
    params_type=Dip,
    columns=lambda params: ("close",),
    conditions=per_asset(rule),
    grid={"z": (1.0, 2.0), "length": (10, 20)},
    presets={"dip_2_20": {"z": 2.0, "length": 20}},
)
'''


def write(folder: Path, name: str, text: str = DIP) -> Path:
    """A file of a folder that only its owner can write."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


@cache
def tried() -> Path:
    """A folder that remembers which files this process has tried, each of which takes a process."""
    folder = Path(tempfile.mkdtemp(prefix="btp-tried-"))
    atexit.register(shutil.rmtree, folder)
    return folder


@contextmanager
def own_strategies(folder: Path, files: Mapping[str, str] | None = None) -> Iterator[Path]:
    """The strategies of a folder are known here, and in processes that are started meanwhile.

    `files` are written into it first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, text in (files or {}).items():
        write(folder, name, text)
    before = os.environ.get("BACKTEST_STRATEGIES")
    os.environ["BACKTEST_STRATEGIES"] = str(folder)
    use_folder(folder, tried=tried())
    try:
        yield folder
    finally:
        use_folder(None)
        del os.environ["BACKTEST_STRATEGIES"]
        if before is not None:
            os.environ["BACKTEST_STRATEGIES"] = before
