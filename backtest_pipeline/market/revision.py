"""Restatements: how a price history differs from an earlier version of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.panel import Panel

RESTATEMENTS_VERSION = 1
"""Raise it when the comparison of two versions of a history changes."""


@dataclass(frozen=True)
class Revision:
    """Changes to bars that an earlier version already covered.

    Attributes:
        changed: bars in both versions that differ in some column.
        added: bars, up to the last one of the earlier version, that it did not have.
        removed: bars of the earlier version that are gone.
        first_ts, last_ts: first and last affected bar, microseconds since 1970 UTC; None if there
            is none.
        columns: largest `abs(after - before) / abs(before)` of each column that changed; None if a
            value appeared, vanished, or was zero before.
    """

    changed: int
    added: int
    removed: int
    first_ts: int | None
    last_ts: int | None
    columns: Mapping[str, float | None]


def revision_of(before: Panel, after: Panel, columns: Sequence[str]) -> Revision:
    """Compare two versions of one asset's history, up to the last bar of the earlier one.

    Args:
        before, after: panels of that one asset.
        columns: float64 columns to compare; NaN equals NaN.
    """
    known = after.ts <= (before.ts[-1] if len(before) else np.iinfo(np.int64).min)
    late = known & ~np.isin(after.ts, before.ts)
    gone = ~np.isin(before.ts, after.ts)
    _, old, new = np.intersect1d(before.ts, after.ts, assume_unique=True, return_indices=True)
    changed = np.zeros(len(old), bool)
    largest: dict[str, float | None] = {}
    for name in columns:
        was, now = before[name][old], after[name][new]
        differs = (was != now) & ~(np.isnan(was) & np.isnan(now))
        if differs.any():
            changed |= differs
            largest[name] = _largest_change(was[differs], now[differs])
    affected = np.concatenate([after.ts[late], before.ts[gone], before.ts[old][changed]])
    return Revision(
        changed=int(changed.sum()),
        added=int(late.sum()),
        removed=int(gone.sum()),
        first_ts=int(affected.min()) if len(affected) else None,
        last_ts=int(affected.max()) if len(affected) else None,
        columns=largest,
    )


def _largest_change(was: np.ndarray, now: np.ndarray) -> float | None:
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(now - was) / np.abs(was)
    return float(change.max()) if np.isfinite(change).all() else None
