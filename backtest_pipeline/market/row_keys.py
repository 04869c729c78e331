"""One sortable number per (asset, stamp), by which rows of several arrays find each other."""

from __future__ import annotations

import numpy as np

_LARGEST = int(np.iinfo(np.int64).max)


def row_keys(*rows: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """Keys that ascend by segment, then by stamp, and are equal where both are.

    Each segment has its own span of numbers. Where these would not fit into 64 bits (14,000 assets
    over 20 years, in microseconds), stamps are numbered instead, which takes a sort.

    Args:
        rows: one pair or more of int64 arrays: position of the segment, -1 or more, and stamp.

    Returns:
        int64, one array per pair, comparable with each other.
    """
    stamps = np.concatenate([ts for _, ts in rows])
    if not len(stamps):
        return [np.empty(0, np.int64) for _ in rows]
    first, last = int(stamps.min()), int(stamps.max())
    n_segments = 2 + max(int(segment.max(initial=0)) for segment, _ in rows)
    span = last - first + 1
    if span <= _LARGEST // n_segments:
        return [segment * span + (ts - first) for segment, ts in rows]
    distinct = np.unique(stamps)
    return [segment * len(distinct) + np.searchsorted(distinct, ts) for segment, ts in rows]
