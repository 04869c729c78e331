"""From signals to orders: what is due at the open of which bar.

A signal is known at the close of bar t and becomes an order at the open of bar t + 1 of the
same asset; the signal of an asset's last bar stays pending. One position is held at a time:

- flat: an entry opens its side; entries on both sides at once, or an entry together with the
  exit of its own side, say nothing and open nothing;
- in position: an entry of the other side reverses, else the exit of the own side closes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from backtest_pipeline.simulation.config import Direction

LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT = 1, 2, 4, 8
_ALLOWED = {
    Direction.LONG: LONG_ENTRY | LONG_EXIT,
    Direction.SHORT: SHORT_ENTRY | SHORT_EXIT,
    Direction.BOTH: LONG_ENTRY | LONG_EXIT | SHORT_ENTRY | SHORT_EXIT,
}


@dataclass(frozen=True)
class Orders:
    """Orders of a batch, sorted by column, then in the order of their filling.

    Attributes:
        column: int64, `run * n_assets + asset`.
        row: int64, panel row of the bar at whose open the order fills.
        target: int8, the side held after the fill: 1 long, -1 short, 0 flat.
        offsets: int64, `n_columns + 1`; the orders of each column.
        pending: int8, `n_columns`; what the last bar's signal asks for: 2 where it asks nothing.
    """

    column: np.ndarray
    row: np.ndarray
    target: np.ndarray
    offsets: np.ndarray
    pending: np.ndarray


NOTHING_PENDING = 2


@njit(cache=True, nogil=True)
def _decide(position: int, event: int) -> int:
    """The side to hold after seeing `event` in `position`."""
    long_in = event & LONG_ENTRY and not event & LONG_EXIT
    short_in = event & SHORT_ENTRY and not event & SHORT_EXIT
    if position == 0:
        if long_in and not short_in:
            return 1
        if short_in and not long_in:
            return -1
        return 0
    if position == 1:
        if short_in:
            return -1
        return 0 if event & LONG_EXIT else 1
    if long_in:
        return 1
    return 0 if event & SHORT_EXIT else -1


@njit(cache=True, nogil=True)
def _resolve(events, offsets, column, row, target, column_offsets, pending):
    n_runs = events.shape[0]
    n_assets = len(offsets) - 1
    n = 0
    for run in range(n_runs):
        for asset in range(n_assets):
            c = run * n_assets + asset
            position = 0
            pending[c] = NOTHING_PENDING
            for t in range(offsets[asset], offsets[asset + 1]):
                event = events[run, t]
                if event == 0:
                    continue
                wanted = _decide(position, event)
                if wanted == position:
                    continue
                if t + 1 == offsets[asset + 1]:
                    pending[c] = wanted
                    continue
                column[n], row[n], target[n] = c, t + 1, wanted
                position = wanted
                n += 1
            column_offsets[c + 1] = n
    return n


def resolve_orders(events: np.ndarray, offsets: np.ndarray, direction: Direction) -> Orders:
    """The orders that signals lead to.

    Args:
        events: uint8 `(n_runs, n_rows)`, bits LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT.
        offsets: int64, the panel's asset bounds.
        direction: sides that may be taken; the other side's signals are not seen.
    """
    events = np.ascontiguousarray(events & np.uint8(_ALLOWED[direction]))
    n_columns = events.shape[0] * (len(offsets) - 1)
    most = int(np.count_nonzero(events))
    column = np.empty(most, np.int64)
    row = np.empty(most, np.int64)
    target = np.empty(most, np.int8)
    column_offsets = np.zeros(n_columns + 1, np.int64)
    pending = np.empty(n_columns, np.int8)
    n = _resolve(events, offsets, column, row, target, column_offsets, pending)
    return Orders(column[:n], row[:n], target[:n], column_offsets, pending)
