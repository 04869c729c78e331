"""Long curves as few points that show the same picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest_pipeline.market.errors import InvalidInput


def thinned_rows(curves: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Which rows to show of curves over the same stamps: none of their peaks and valleys is lost.

    The rows are cut into stretches; of each stretch stay the rows where a curve is highest and
    lowest, and of the whole the first and the last row.

    Args:
        curves: float64 `(n_rows,)` each, at least one.
        most: rows to show at most.

    Returns:
        int64, ascending; all rows where there are no more than `most`.

    Raises:
        InvalidInput: for fewer points than hold the extremes of one stretch.
    """
    n_rows, fewest = len(curves[0]), 2 + 2 * len(curves)
    if most < fewest:
        raise InvalidInput(f"{len(curves)} curves need {fewest} points at least, not {most}")
    if n_rows <= most:
        return np.arange(n_rows)
    n_stretches = (most - 2) // (2 * len(curves))
    bounds = np.linspace(0, n_rows, n_stretches + 1).astype(np.int64)
    kept = {0, n_rows - 1}
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for curve in curves:
            part = curve[start:stop]
            kept |= {start + int(part.argmin()), start + int(part.argmax())}
    return np.array(sorted(kept))
