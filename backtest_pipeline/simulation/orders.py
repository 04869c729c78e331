"""From signals to orders: the bits of an event, and which side they ask to hold.

A signal is known at the close of bar t and is due at the open of the same asset's bar t + 1. One
position is held at a time:

- flat: an entry opens its side; entries on both sides at once, or an entry together with the
  exit of its own side, say nothing and open nothing;
- in position: an entry of the other side reverses, else the exit of the own side closes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from backtest_pipeline.simulation.config import Direction

LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT = 1, 2, 4, 8
ENTRIES = np.uint8(LONG_ENTRY | SHORT_ENTRY)
NOTHING_PENDING = 2
_ALLOWED = {
    Direction.LONG: LONG_ENTRY | LONG_EXIT,
    Direction.SHORT: SHORT_ENTRY | SHORT_EXIT,
    Direction.BOTH: LONG_ENTRY | LONG_EXIT | SHORT_ENTRY | SHORT_EXIT,
}


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
    pending = np.full(len(side), NOTHING_PENDING, np.int8)
    _ask_last(events & np.uint8(_ALLOWED[direction]), offsets, side, pending)
    return pending


@njit(cache=True, nogil=True)
def _ask_last(events, offsets, side, pending):
    n_assets = len(offsets) - 1
    for c in range(len(side)):
        run, asset = c // n_assets, c % n_assets
        if offsets[asset + 1] > offsets[asset]:
            wanted = decide(side[c], events[run, offsets[asset + 1] - 1])
            if wanted != side[c]:
                pending[c] = wanted


@njit(cache=True, nogil=True)
def decide(side: float, event: int) -> int:
    """The side to hold after seeing `event` while holding `side`."""
    long_in = event & LONG_ENTRY and not event & LONG_EXIT
    short_in = event & SHORT_ENTRY and not event & SHORT_EXIT
    if side == 0:
        if long_in and not short_in:
            return 1
        if short_in and not long_in:
            return -1
        return 0
    if side > 0:
        if short_in:
            return -1
        return 0 if event & LONG_EXIT else 1
    if long_in:
        return 1
    return 0 if event & SHORT_EXIT else -1
