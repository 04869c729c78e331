"""Rolling and recursive measures of each asset, as functions of a column and its offsets.

All take a float64 column `(n_rows,)` of stacked assets and the panel's `offsets`, and return a
column of the same length. None looks across the boundary between two assets, and none looks ahead.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest_pipeline.market.features import kernels


def previous(x: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Value of the previous row; NaN on an asset's first row."""
    return shift(x, offsets, 1)


def shift(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Value of n rows before, n at least 0.

    On the first n rows of an asset it is NaN, or False for a column of bools.
    """
    n = min(n, x.size)
    out = np.empty_like(x)
    out[n:] = x[: x.size - n]
    first, end = offsets[:-1, None], offsets[1:, None]
    unknown = first + np.arange(min(n, int(np.diff(offsets).max(initial=0))))
    out[unknown[unknown < end]] = False if x.dtype == np.bool_ else np.nan
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


def population_deviation(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Population standard deviation (ddof 0) of the last n rows."""
    return np.sqrt(kernels.rolling_moments(x, offsets, n)[1] / n)


def zscore(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Distance from the mean of the last n rows, in sample standard deviations (ddof 1).

    NaN if the rows do not vary. The current row is one of the n, so |z| <= (n - 1) / sqrt(n).
    """
    middle, squares = kernels.rolling_moments(x, offsets, n)
    return ratio(x - middle, np.sqrt(squares / (n - 1)))


def total(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Sum of the last n rows; exact for whole numbers."""
    return kernels.rolling_sum(x, offsets, n)


def quantile(x: np.ndarray, offsets: np.ndarray, n: int, share: float) -> np.ndarray:
    """Value below which a share of the last n rows lies, interpolated linearly between two rows.

    `share` is a fraction, 0.5 for the median. NaN unless the last n rows are all numbers.
    """
    rows = pd.Series(x).groupby(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)))
    return rows.rolling(n).quantile(share).to_numpy()


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
