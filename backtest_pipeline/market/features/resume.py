"""Features of an asset's newer rows, from what its older rows have left behind.

A window needs the rows that it spans. A recursion needs where it stood; it is resumed so many rows
before the first one wanted that windows over recursive columns are full as well. Everything is
computed by the same code on the same numbers as if the pass had begun at the first row, so that
the bits are the same.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.features.build import built
from backtest_pipeline.market.features.catalogue import FEATURES, Z_WINDOW
from backtest_pipeline.market.panel import Panel

_SPANNED = max(feature.rows for feature in FEATURES if not feature.recursive) - 1
_RESUMED = Z_WINDOW - 1  # the longest window over a recursive column


def resume_features(
    bars: Panel, done: np.ndarray, standing: np.ndarray, next_done: np.ndarray
) -> tuple[Panel, np.ndarray]:
    """Features of the rows after the first `done` of each asset, as `build_features` has them.

    Args:
        bars: all bars of each asset, as for `build_features`.
        done: int64 `(n_assets,)`, rows whose features are known; 0 computes all.
        standing: float64 `(n_assets, n_averages, 2)`, what was returned for this `done`; zeros or
            empty for an asset without any.
        next_done: int64 `(n_assets,)`, at least `done`, at most the rows there are.

    Returns:
        The features of the rows that are not done, and for each asset where its recursions stand,
        to go on from `next_done`.

    Raises:
        InvalidInput: for a missing column.
    """
    # With the recursions comes numba, which takes a second to import.
    from backtest_pipeline.market.features.recursions import Recursions

    skipped = np.maximum(done - _SPANNED, 0)
    passed = _without_first(bars, skipped)
    first = passed.offsets[:-1] - skipped  # where an asset's first row would be
    recursions = Recursions(
        begin=first + np.maximum(done - _RESUMED, 0),
        mark=first + np.maximum(next_done - _RESUMED, 0),
        standing=standing.transpose(1, 0, 2),
    )
    features = built(passed, recursions)
    return _without_first(features, done - skipped), np.stack(recursions.noted, axis=1)


def _without_first(panel: Panel, n: np.ndarray) -> Panel:
    """The panel without the first n rows of each asset."""
    if not n.any():
        return panel
    place = np.arange(len(panel)) - np.repeat(panel.offsets[:-1], panel.lengths)
    return panel.take(place >= np.repeat(n, panel.lengths))
