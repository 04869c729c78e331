"""Which windows of an asset's bars a walk-forward trains on and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.research.validation.choices import Mode, mode_of
from backtest_pipeline.research.validation.splits import (
    Fold,
    Layout,
    LeftOut,
    Length,
    fixed_date_layout,
    walk_forward_layout,
)


@dataclass(frozen=True)
class Schedule:
    """Windows that walk through the bars; see `splits.walk_forward_splits`.

    Each test window begins where the one before ends, so that the tests are one contiguous
    stretch of bars, each used once; with a `step` that is longer than `test` there are bars
    between them that no fold tests.
    """

    train: Length = 365
    test: Length = 90
    mode: Mode = "expanding"
    purge: int = 0
    embargo: float = 0.01
    step: Length | None = None

    def layout(self, index: pd.DatetimeIndex) -> Layout:
        """The folds of bars with these stamps; errors as `splits.walk_forward_splits`."""
        return walk_forward_layout(
            index, self.train, self.test, self.step, self.mode, self.purge, self.embargo
        )

    def as_json(self) -> dict[str, Any]:
        """All that decides the folds."""
        about = {
            "train": _length(self.train),
            "test": _length(self.test),
            "mode": self.mode,
            "purge": self.purge,
            "embargo": self.embargo,
        }
        return about if self.step is None else {**about, "step": _length(self.step)}


@dataclass(frozen=True)
class FixedDates:
    """Windows between dates that were agreed upon beforehand.

    Attributes:
        windows: `(train_start, test_start, test_end)` each: training ends where its test begins,
            the end is not included, and dates without a time zone are UTC.
        purge, embargo: bars, and a share of the training window, left out before each test.
    """

    windows: Sequence[Sequence[str | datetime]]
    purge: int = 0
    embargo: float = 0.01

    def layout(self, index: pd.DatetimeIndex) -> Layout:
        """The folds of bars with these stamps; errors as `splits.fixed_date_layout`."""
        windows = []
        for window in self.windows:
            if len(window) != 3:
                raise InvalidInput(
                    f"a window is (train_start, test_start, test_end), not {window!r}"
                )
            train_start, test_start, test_end = window
            windows.append((train_start, test_start, test_start, test_end))
        return fixed_date_layout(index, windows, self.purge, self.embargo)

    def as_json(self) -> dict[str, Any]:
        """All that decides the folds."""
        windows = [[str(bound) for bound in window] for window in self.windows]
        return {"windows": windows, "purge": self.purge, "embargo": self.embargo}


def schedule_of(stored: Mapping[str, Any]) -> Schedule | FixedDates:
    """The schedule that `as_json` gave."""
    apart = stored["purge"], stored["embargo"]
    if "windows" in stored:
        return FixedDates(stored["windows"], *apart)
    mode = mode_of(stored["mode"])
    return Schedule(stored["train"], stored["test"], mode, *apart, step=stored.get("step"))


def _length(length: Length) -> float | str:
    return str(length) if isinstance(length, timedelta) else length


@dataclass(frozen=True)
class Task:
    """One fold of one asset.

    Attributes:
        asset: its name.
        fold: its windows, positions among the asset's bars.
    """

    asset: str
    fold: Fold

    def windows(self, panel: Panel) -> tuple[slice, slice]:
        """Rows of the panel to train on and to test on."""
        first = panel.rows_of(self.asset).start
        train, test = self.fold.train, self.fold.test
        return (
            slice(first + int(train[0]), first + int(train[-1]) + 1),
            slice(first + int(test[0]), first + int(test[-1]) + 1),
        )


def tasks_of(
    panel: Panel, asset: str, schedule: Schedule | FixedDates, keep: np.ndarray | None = None
) -> tuple[list[Task], tuple[LeftOut, ...]]:
    """The folds of an asset, and the windows that have too few bars for one.

    Args:
        panel: bars of the asset, and maybe of others.
        asset: its name.
        schedule: the windows.
        keep: bool `(n_rows,)`, the stretch of bars that windows are laid out on; all where None.

    Raises:
        InvalidInput: where these bars do not fill one fold; the message counts those missing.
    """
    rows = panel.rows_of(asset)
    kept = np.arange(rows.stop - rows.start)
    if keep is not None:
        kept = kept[keep[rows]]
    try:
        layout = schedule.layout(utc_index(panel.ts[rows][kept]))
    except InvalidInput as error:
        raise InvalidInput(f"{asset}|{panel.timeframe.name}: {error}") from error
    tasks = [
        Task(asset, replace(fold, train=kept[fold.train], test=kept[fold.test]))
        for fold in layout.folds
    ]
    return tasks, layout.left_out


def untested_bars(tasks: Sequence[Task]) -> int:
    """Bars between the tests of an asset's folds, in the order of time, that none tests."""
    between = [int(later.fold.test[0] - task.fold.test[-1]) - 1 for task, later in pairwise(tasks)]
    return sum(between)
