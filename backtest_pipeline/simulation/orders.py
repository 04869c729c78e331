"""From conditions to orders: the bits of an event, and which side they ask to hold.

A condition is known at the close of bar t, and what follows from it is due at the open of the
same asset's bar t + 1. One position is held at a time, and what is done depends on what is held:

- entries of both sides on one bar are a conflict: they are dropped, and counted;
- an entry together with the exit of its own side opens nothing;
- flat: an entry opens its side, whatever ended the position before;
- in position: an entry of the other side reverses, else the exit of the own side closes.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.simulation.config import Direction
from backtest_pipeline.simulation.engine import (
    HOLD,
    LONG_ENTRY,
    LONG_EXIT,
    NOTHING_PENDING,
    SHORT_ENTRY,
    SHORT_EXIT,
    Simulated,
    decide_all,
)
from backtest_pipeline.trading.conditions import Conditions

__all__ = [
    "HOLD",
    "LONG_ENTRY",
    "LONG_EXIT",
    "NOTHING_PENDING",
    "SHORT_ENTRY",
    "SHORT_EXIT",
    "condition_bits",
    "conflicts",
    "first_bars",
    "pending_sides",
    "seen_events",
]
_ALLOWED = {
    Direction.LONG: LONG_ENTRY | LONG_EXIT | HOLD,
    Direction.SHORT: SHORT_ENTRY | SHORT_EXIT | HOLD,
    Direction.BOTH: LONG_ENTRY | LONG_EXIT | SHORT_ENTRY | SHORT_EXIT | HOLD,
}


def condition_bits(conditions: Conditions) -> np.ndarray:
    """Conditions as uint8 `(n_rows,)` of LONG_ENTRY, LONG_EXIT, SHORT_ENTRY and SHORT_EXIT."""
    bits = conditions.long_entry.view(np.uint8) * np.uint8(LONG_ENTRY)
    bits |= conditions.long_exit.view(np.uint8) * np.uint8(LONG_EXIT)
    bits |= conditions.short_entry.view(np.uint8) * np.uint8(SHORT_ENTRY)
    bits |= conditions.short_exit.view(np.uint8) * np.uint8(SHORT_EXIT)
    return bits


def first_bars(bits: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The signals of conditions: of each unbroken stretch on which one is true, the first bar.

    Args:
        bits: uint8 `(n_runs, n_rows)`.
        offsets: int64, the panel's asset bounds.
    """
    before = np.zeros_like(bits)
    before[:, 1:] = bits[:, :-1]
    before[:, offsets[:-1][np.diff(offsets) > 0]] = 0
    return bits & ~before


def conflicts(seen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Bars on which both sides would be entered, int64 `(n_columns,)`; `seen` as in a run."""
    both = np.uint8(LONG_ENTRY | SHORT_ENTRY)
    at = np.argwhere((seen & np.uint8(LONG_ENTRY | SHORT_ENTRY)) == both)
    n_assets = len(offsets) - 1
    column = at[:, 0] * n_assets + np.searchsorted(offsets, at[:, 1], side="right") - 1
    return np.bincount(column, minlength=len(seen) * n_assets)


def seen_events(
    events: np.ndarray, offsets: np.ndarray, direction: Direction, delay_bars: int
) -> np.ndarray:
    """The events that a run acts on, at the bar at whose close it acts.

    Args:
        events: uint8 `(n_runs, n_rows)`, bits LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT.
        offsets: int64, the panel's asset bounds.
        direction: sides that may be taken; the other side's signals are not seen.
        delay_bars: bars that every condition is late; a position to HOLD is not.
    """
    seen = events & np.uint8(_ALLOWED[direction])
    if delay_bars == 0:
        return np.ascontiguousarray(seen)
    late = np.zeros_like(seen)
    held = (seen & np.uint8(HOLD)) > 0
    known = np.where(held, np.uint8(0), seen)
    for first, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        late[:, first + delay_bars : end] = known[:, first : max(end - delay_bars, first)]
    return np.where(held, seen, late)


def pending_sides(seen: np.ndarray, offsets: np.ndarray, simulated: Simulated) -> np.ndarray:
    """Side to take at the next open, or NOTHING_PENDING, int8 `(n_columns,)`.

    Args:
        seen: uint8 `(n_runs, n_rows)`, from `seen_events`: what is acted on at the last bar's close
            is the signal of that bar, or of as many bars before as every condition is late.
        offsets: int64, the panel's asset bounds.
        simulated: where the accounts stand at the end.
    """
    side = simulated.side
    if not seen.shape[1]:
        return np.full(len(side), NOTHING_PENDING, np.int8)
    rows = np.maximum(offsets[1:] - 1, 0)
    last = seen[:, rows]
    last[:, np.diff(offsets) == 0] = 0
    return decide_all(side, last.ravel(), simulated.rests, np.tile(rows, len(seen)))
