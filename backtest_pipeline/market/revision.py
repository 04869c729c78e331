"""How a history differs from an earlier version of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.panel import Panel

RESTATEMENTS_VERSION = 1
"""Raise it when two versions of a history are compared otherwise."""


@dataclass(frozen=True)
class Revision:
    """What was changed in bars that had been there.

    Attributes:
        changed: bars of both versions with another value in some column.
        added: bars at or before the earlier version's last one that it did not have.
        removed: bars of the earlier version that are gone.
        first_ts, last_ts: of all these, int64 microseconds UTC; None where there are none.
        columns: for each column that changed the largest `abs(after - before) / abs(before)`;
            None where a value appeared or vanished, or was zero.
    """

    changed: int
    added: int
    removed: int
    first_ts: int | None
    last_ts: int | None
    columns: Mapping[str, float | None]


def revision_of(before: Panel, after: Panel, columns: Sequence[str]) -> Revision:
    """The revision of one asset's history; what follows the earlier version's last bar is none.

    Args:
        before, after: panels of the one asset.
        columns: float64 columns to compare; NaN equals NaN.
    """
    known = after.ts <= (before.ts[-1] if len(before) else np.iinfo(np.int64).min)
    late = known & ~np.isin(after.ts, before.ts)
    gone = ~np.isin(before.ts, after.ts)
    _, old, new = np.intersect1d(before.ts, after.ts, assume_unique=True, return_indices=True)
    moved = np.zeros(len(old), bool)
    largest: dict[str, float | None] = {}
    for name in columns:
        was, now = before[name][old], after[name][new]
        other = (was != now) & ~(np.isnan(was) & np.isnan(now))
        if other.any():
            moved |= other
            largest[name] = _largest_change(was[other], now[other])
    touched = np.concatenate([after.ts[late], before.ts[gone], before.ts[old][moved]])
    return Revision(
        changed=int(moved.sum()),
        added=int(late.sum()),
        removed=int(gone.sum()),
        first_ts=int(touched.min()) if len(touched) else None,
        last_ts=int(touched.max()) if len(touched) else None,
        columns=largest,
    )


def _largest_change(was: np.ndarray, now: np.ndarray) -> float | None:
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(now - was) / np.abs(was)
    return float(change.max()) if np.isfinite(change).all() else None
