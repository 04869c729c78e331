"""Rolling and recursive measures of each asset, as functions of a column and its offsets.

All take a float64 column `(n_rows,)` of stacked assets and the panel's `offsets`, and return a
column of the same length. None looks across the boundary between two assets, and none looks ahead.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.features import kernels


def previous(x: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Value of the previous row; NaN on an asset's first row."""
    out = np.empty_like(x)
    out[1:] = x[:-1]
    out[offsets[:-1][np.diff(offsets) > 0]] = np.nan
    return out


def change(x: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Change from the previous row; NaN on an asset's first row."""
    return x - previous(x, offsets)


def crosses_above(x: np.ndarray, y: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whether x crosses above y at each row, bool; False if any of the four values is NaN."""
    return kernels.crosses_above(x, y, offsets)


def ema(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Exponential moving average, weight 2 / (n + 1), seeded with the mean of the first n."""
    return kernels.smooth(x, offsets, n, 2 / (n + 1))


def wilder(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Wilder's average: the mean of the first n, then (previous * (n - 1) + x) / n."""
    return kernels.smooth(x, offsets, n, 1 / n)


def mean(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Mean of the last n rows."""
    return kernels.rolling_moments(x, offsets, n)[0]


def deviation(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Sample standard deviation (ddof 1) of the last n rows."""
    return np.sqrt(kernels.rolling_moments(x, offsets, n)[1] / (n - 1))


def zscore(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Distance from the mean of the last n rows, in sample standard deviations (ddof 1).

    NaN if the rows do not vary. The current row is one of the n, so |z| <= (n - 1) / sqrt(n).
    """
    middle, squares = kernels.rolling_moments(x, offsets, n)
    return ratio(x - middle, np.sqrt(squares / (n - 1)))


def highest(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Maximum of the last n rows, the current one included."""
    return kernels.rolling_max(x, offsets, n)


def lowest(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Minimum of the last n rows, the current one included."""
    return -kernels.rolling_max(-x, offsets, n)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`; NaN where `whole` is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole == 0, np.nan, part / whole)
