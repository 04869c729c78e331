"""Where the time goes: samples of every working thread, by function of this project.

cProfile sees one thread and slows small functions down; stages work in several threads and wait
for Postgres, and a wait counts here with the function that waits.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PROJECT = "backtest_pipeline."
# Doors that everybody goes through: what counts is who goes.
_DOORS = ("storage.postgres.copy", "storage.postgres.database", "market.panel")
_IDLE = ("pipeline.stage", "pipeline.use_cases.refresh")


@contextmanager
def sampled(into: Counter[str], interval_s: float = 0.004) -> Iterator[None]:
    """Count the samples of the block in `into`, by function."""
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(into, interval_s, stop), daemon=True)
    sampler.start()
    try:
        yield
    finally:
        stop.set()
        sampler.join()


def _sample(into: Counter[str], interval_s: float, stop: threading.Event) -> None:
    while not stop.wait(interval_s):
        for frame in sys._current_frames().values():
            name = _function_at(frame)
            if name is not None:
                into[name] += 1


def _function_at(frame: FrameType | None) -> str | None:
    """The innermost function of the project, with the door that it stands in; None where idle."""
    door = ""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_PROJECT):
            room = module.removeprefix(_PROJECT)
            if room not in _DOORS:
                name = f"{room}.{frame.f_code.co_qualname}{door}"
                return None if room in _IDLE else name
            door = f" > {frame.f_code.co_name}"
        frame = frame.f_back
    return None
