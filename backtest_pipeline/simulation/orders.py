"""From signals to orders: the bits of an event, and which side they ask to hold.

A signal is known at the close of bar t and is due at the open of the same asset's bar t + 1. One
position is held at a time:

- flat: an entry opens its side; entries on both sides at once, or an entry together with the
  exit of its own side, say nothing and open nothing;
- in position: an entry of the other side reverses, else the exit of the own side closes.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.simulation.config import Direction
from backtest_pipeline.simulation.engine import (
    LONG_ENTRY,
    LONG_EXIT,
    NOTHING_PENDING,
    SHORT_ENTRY,
    SHORT_EXIT,
    decide_all,
)
from backtest_pipeline.strategies.strategy import Events

__all__ = [
    "LONG_ENTRY",
    "LONG_EXIT",
    "NOTHING_PENDING",
    "SHORT_ENTRY",
    "SHORT_EXIT",
    "event_bits",
    "pending_sides",
    "seen_events",
]
_ALLOWED = {
    Direction.LONG: LONG_ENTRY | LONG_EXIT,
    Direction.SHORT: SHORT_ENTRY | SHORT_EXIT,
    Direction.BOTH: LONG_ENTRY | LONG_EXIT | SHORT_ENTRY | SHORT_EXIT,
}


def event_bits(events: Events) -> np.ndarray:
    """Events as uint8 `(n_rows,)` of LONG_ENTRY, LONG_EXIT, SHORT_ENTRY and SHORT_EXIT."""
    bits = events.long_entry.view(np.uint8) * np.uint8(LONG_ENTRY)
    bits |= events.long_exit.view(np.uint8) * np.uint8(LONG_EXIT)
    bits |= events.short_entry.view(np.uint8) * np.uint8(SHORT_ENTRY)
    bits |= events.short_exit.view(np.uint8) * np.uint8(SHORT_EXIT)
    return bits


def seen_events(
    events: np.ndarray, offsets: np.ndarray, direction: Direction, delay_bars: int
) -> np.ndarray:
    """The events that a run acts on, at the bar at whose close it acts.

    Args:
        events: uint8 `(n_runs, n_rows)`, bits LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT.
        offsets: int64, the panel's asset bounds.
        direction: sides that may be taken; the other side's signals are not seen.
        delay_bars: bars that every signal is late.
    """
    seen = events & np.uint8(_ALLOWED[direction])
    if delay_bars == 0:
        return np.ascontiguousarray(seen)
    late = np.zeros_like(seen)
    for first, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        late[:, first + delay_bars : end] = seen[:, first : max(end - delay_bars, first)]
    return late


def pending_sides(
    events: np.ndarray, offsets: np.ndarray, direction: Direction, side: np.ndarray
) -> np.ndarray:
    """Side that the last bar's signal asks for, or NOTHING_PENDING, int8 `(n_columns,)`.

    Args:
        events: uint8 `(n_runs, n_rows)`, as the strategies gave them.
        offsets: int64, the panel's asset bounds.
        direction: sides that may be taken.
        side: int8 `(n_columns,)`, side held at the end.
    """
    if not events.shape[1]:
        return np.full(len(side), NOTHING_PENDING, np.int8)
    last = events[:, np.maximum(offsets[1:] - 1, 0)] & np.uint8(_ALLOWED[direction])
    last[:, np.diff(offsets) == 0] = 0
    return decide_all(side, last.ravel())
