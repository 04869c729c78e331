"""Refreshes as Dagster runs in processes of their own, which wait at a step for a test."""

from __future__ import annotations

import multiprocessing as mp
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_context = mp.get_context("forkserver")


@dataclass
class Hold:
    """Where a process waits: at the so-many-th sign of progress; nowhere where `at` is None."""

    at: int | None
    reached: Any = field(default_factory=_context.Event)
    go_on: Any = field(default_factory=_context.Event)
    steps: Any = field(default_factory=lambda: _context.Value("i", 0))

    def progress(self, _stage: str, _done: int, _total: int) -> None:
        self.steps.value += 1
        if self.steps.value == self.at:
            self.reached.set()
            self.go_on.wait()


def refresh_by_dagster(environment: Mapping[str, str], hold: Hold) -> None:
    """Compute an asset of the sample market anew, as one Dagster run and its roll-up."""
    os.environ.update(environment)
    from backtest_pipeline.launch import refresh

    result = refresh(
        bars="",
        assets=["S-ALPHA"],
        timeframes=["1D"],
        full_rebuild=True,
        progress=hold.progress,
    )
    assert result.failures == ()
