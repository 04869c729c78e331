"""The deepest drawdowns of a curve: from a peak, over the trough, to the recovery."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class DrawdownSpell(NamedTuple):
    """One stretch below a peak; stamps are microseconds since 1970 UTC.

    Attributes:
        depth: fraction below the peak at the trough.
        peak, trough: when.
        recovered: when the peak was reached again; None where it was not.
        end: that, or the last mark.
    """

    depth: float
    peak: int
    trough: int
    recovered: int | None
    end: int


def deepest_spells(ts: np.ndarray, drawdown: np.ndarray, most: int = 5) -> list[DrawdownSpell]:
    """The deepest spells, deepest first, each from its own peak.

    Args:
        ts: int64 `(n,)`, ascending.
        drawdown: float64 `(n,)`, fraction below the running peak, 0 at it.
        most: how many.

    Examples:
        >>> below = np.array([0, -0.1, 0, -0.2, -0.3])
        >>> [(s.depth, s.peak, s.recovered) for s in deepest_spells(np.arange(5), below)]
        [(-0.3, 2, None), (-0.1, 0, 2)]
    """
    below = drawdown < 0
    edges = np.flatnonzero(np.diff(np.concatenate(([False], below, [False]))))
    spells = []
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        trough = first + int(drawdown[first:end].argmin())
        recovered = int(ts[end]) if end < len(ts) else None
        spells.append(
            DrawdownSpell(
                float(drawdown[trough]),
                int(ts[max(first - 1, 0)]),
                int(ts[trough]),
                recovered,
                int(ts[min(end, len(ts) - 1)]),
            )
        )
    return sorted(spells, key=lambda spell: (spell.depth, spell.peak))[:most]
