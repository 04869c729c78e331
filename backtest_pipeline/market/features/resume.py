"""Features of an asset's newest rows, resumed from the state after its older rows.

A window needs the rows that it spans. A recursive average needs its state; it resumes early enough
that windows over recursive columns are full as well. The same code runs on the same numbers as in
a full pass, so the results are the same to the bit.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.features.build import features_of
from backtest_pipeline.market.features.catalogue import FEATURES, Z_WINDOW
from backtest_pipeline.market.panel import Panel

_SPANNED = max(feature.rows for feature in FEATURES if not feature.recursive) - 1
_RESUMED = Z_WINDOW - 1  # rows before the first new one: the longest window over a recursion


def resume_features(
    bars: Panel, done: np.ndarray, standing: np.ndarray, next_done: np.ndarray
) -> tuple[Panel, np.ndarray]:
    """Features of the rows after the first `done` of each asset, equal to those of a full build.

    Args:
        bars: all bars of each asset, as for `build_features`.
        done: int64 `(n_assets,)`, rows whose features exist already; 0 computes all.
        standing: float64 `(n_assets, n_averages, 2)`, state returned by the call whose `next_done`
            is this `done`; zeros or empty for an asset without any.
        next_done: int64 `(n_assets,)`, row to resume from next time: at least `done`, at most the
            number of rows.

    Returns:
        The features of the new rows, and the state of each asset's recursive averages at
        `next_done`, float64 `(n_assets, n_averages, 2)`.

    Raises:
        InvalidInput: for a missing column.
    """
    # The recursions import numba, which takes a second.
    from backtest_pipeline.market.features.recursions import Recursions

    skipped = np.maximum(done - _SPANNED, 0)
    passed = _without_first(bars, skipped)
    first = passed.offsets[:-1] - skipped  # where each asset's first row would be
    recursions = Recursions(
        begin=first + np.maximum(done - _RESUMED, 0),
        mark=first + np.maximum(next_done - _RESUMED, 0),
        standing=standing.transpose(1, 0, 2),
    )
    features = features_of(passed, recursions)
    return _without_first(features, done - skipped), np.stack(recursions.noted, axis=1)


def _without_first(panel: Panel, n: np.ndarray) -> Panel:
    """The panel without the first n rows of each asset."""
    if not n.any():
        return panel
    place = np.arange(len(panel)) - np.repeat(panel.offsets[:-1], panel.lengths)
    return panel.take(place >= np.repeat(n, panel.lengths))
