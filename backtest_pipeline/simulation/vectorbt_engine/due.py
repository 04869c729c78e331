"""What is due at the open of each bar, as arrays of bars by columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backtest_pipeline.simulation.engine import (
    BY_NUMBER,
    HOLD,
    LONG_ENTRY,
    LONG_EXIT,
    SHORT_ENTRY,
    SHORT_EXIT,
)

if TYPE_CHECKING:
    from backtest_pipeline.simulation.inputs import AccountInputs


@dataclass(frozen=True)
class Due:
    """What is due at each bar's open: bool `(n_bars, n_columns)`, and fractions.

    Attributes:
        long_entry, short_entry, long_exit, short_exit: what follows from the bar before.
        fraction: float64, of the equity, for an entry; NaN where it is undefined.
        stop, target: float64, distances; NaN for none.
        lacks_distance: where a distance should have a value and has none.
        trails: whether the stop follows the best price.
    """

    long_entry: np.ndarray
    short_entry: np.ndarray
    long_exit: np.ndarray
    short_exit: np.ndarray
    fraction: np.ndarray
    stop: np.ndarray
    target: np.ndarray
    lacks_distance: np.ndarray
    trails: np.ndarray


def due_at_opens(
    inputs: AccountInputs, row: np.ndarray, run: np.ndarray, exists: np.ndarray
) -> Due:
    """What follows at each bar's open from the event of the bar before it, as the account decides.

    Args:
        inputs: events, rules, fractions and distances.
        row: int64 `(n_bars, n_columns)`, rows of the panel.
        run: int64 `(n_columns,)`, the run of each column.
        exists: bool as `row`, False after an asset's last bar.
    """
    seen = np.zeros(row.shape, np.uint8)
    seen[1:] = inputs.events[run, row[:-1]]
    seen[~exists] = 0
    enters_long, enters_short = (seen & LONG_ENTRY) > 0, (seen & SHORT_ENTRY) > 0
    leaves_long, leaves_short = (seen & LONG_EXIT) > 0, (seen & SHORT_EXIT) > 0
    holds = (seen & HOLD) > 0  # no condition but a position
    long_entry = enters_long & (holds | ~enters_short & ~leaves_long)
    short_entry = enters_short & np.where(holds, ~enters_long, ~enters_long & ~leaves_short)
    rule = inputs.rules[_rule_of(inputs, row, run)]
    stop, lacks_stop = _distances(inputs, rule, row, "stop_loss")
    trailing, lacks_trailing = _distances(inputs, rule, row, "trailing")
    target, lacks_target = _distances(inputs, rule, row, "take_profit")
    return Due(
        long_entry=long_entry,
        short_entry=short_entry,
        long_exit=np.where(holds, ~long_entry, leaves_long | short_entry),
        short_exit=np.where(holds, ~short_entry, leaves_short | long_entry),
        fraction=inputs.fractions[rule["sizing"], row],
        stop=np.where(np.isnan(stop), trailing, stop),
        target=target,
        lacks_distance=lacks_stop | lacks_trailing | lacks_target,
        trails=~np.isnan(trailing),
    )


def _rule_of(inputs: AccountInputs, row: np.ndarray, run: np.ndarray) -> np.ndarray:
    """Which rules hold at each bar, int64 as `row`."""
    of, stretches = inputs.rules_of.of, inputs.rules_of.stretches
    if stretches is None:
        return np.broadcast_to(of[run, np.arange(row.shape[1]) % of.shape[1]], row.shape)
    stretch = np.searchsorted(stretches, row, side="right") - 1
    return of[run, np.minimum(stretch, of.shape[1] - 1)]


def _distances(
    inputs: AccountInputs, rule: np.ndarray, row: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    by = rule[f"{name}_by"]
    by_row = by != BY_NUMBER
    own = inputs.distances[np.where(by_row, by, 0), row] if by_row.any() else np.nan
    distance = np.where(by_row, own, rule[name])
    return distance, by_row & np.isnan(distance)
