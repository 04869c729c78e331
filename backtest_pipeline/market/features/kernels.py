"""Compiled loops over stacked assets.

Each takes flat float64 arrays and the int64 `offsets` of a panel, and restarts at each asset. A
value depends either on the last `n` rows, summed in an order that does not depend on the position
or length of the asset, or on the row and the value before it. So an asset's values are the same to
the bit alone and in a batch, and later rows never change earlier ones. For the same reason there
is no `fastmath`, which would let the compiler reorder sums.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.compiled import compiled


@compiled
def smooth(x: np.ndarray, offsets: np.ndarray, n: int, weight: float) -> np.ndarray:
    """Exponential smoothing, seeded with the mean of the first `n` values.

    Each later value moves the level by `weight` times its distance: 2 / (n + 1) gives the EMA,
    1 / n Wilder's average. A NaN gives NaN and restarts the warm-up.
    """
    state = np.zeros((offsets.size - 1, 2))
    return resume_smooth(x, offsets, n, weight, offsets[:-1], offsets[1:], state)


@compiled
def resume_smooth(
    x: np.ndarray,
    offsets: np.ndarray,
    n: int,
    weight: float,
    begin: np.ndarray,
    mark: np.ndarray,
    state: np.ndarray,
) -> np.ndarray:
    """As `smooth`, resumed at row `begin` of each asset; NaN before it.

    `state`, float64 `(n_assets, 2)`, holds the number of values seen and the level before row
    `begin`; it is overwritten with those before row `mark`, which is `begin` or later.
    """
    out = np.full(x.size, np.nan)
    for asset in range(offsets.size - 1):
        seen, level = int(state[asset, 0]), state[asset, 1]
        for t in range(begin[asset], offsets[asset + 1]):
            if t == mark[asset]:
                state[asset, 0], state[asset, 1] = seen, level
            if np.isnan(x[t]):
                seen, level = 0, 0.0
                continue
            seen += 1
            # A running mean is exact for constant values, unlike sum / n.
            if seen <= n:
                level += (x[t] - level) / seen
            else:
                level += (x[t] - level) * weight
            if seen >= n:
                out[t] = level
        if mark[asset] == offsets[asset + 1]:
            state[asset, 0], state[asset, 1] = seen, level
    return out


@compiled
def rolling_moments(x: np.ndarray, offsets: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rolling mean of the last `n` rows, and the sum of squared deviations from it.

    Windows are merged from smaller ones along the binary digits of `n` (13 merges for 365 rows):
    the order is fixed, the error grows with log n, and for constant rows the mean is exact and the
    deviation exactly zero. NaN if the window is not full or contains a NaN.
    """
    mean = np.full(x.size, np.nan)
    squares = np.full(x.size, np.nan)
    longest = 0
    for asset in range(offsets.size - 1):
        longest = max(longest, offsets[asset + 1] - offsets[asset])
    now, then = np.empty((2, longest)), np.empty((2, longest))
    zeros = np.zeros(longest)
    top = 1
    while top * 2 <= n:
        top *= 2
    for asset in range(offsets.size - 1):
        rows = x[offsets[asset] : offsets[asset + 1]]
        count = rows.size
        if count < n:
            continue
        # now[:, i] describes rows[i : i + size]
        now[0, :count] = rows
        now[1, :count] = 0.0
        size, digit = 1, top // 2
        while digit > 0:
            windows = count - 2 * size + 1
            _merge(now, size, now[0, size:], now[1, size:], size, windows, then)
            now, then = then, now
            size *= 2
            if n & digit:
                windows = count - size
                _merge(now, size, rows[size:], zeros, 1, windows, then)
                now, then = then, now
                size += 1
            digit //= 2
        windows = count - n + 1
        mean[offsets[asset] + n - 1 : offsets[asset + 1]] = now[0, :windows]
        squares[offsets[asset] + n - 1 : offsets[asset + 1]] = now[1, :windows]
    return mean, squares


@compiled
def _merge(
    older: np.ndarray,
    older_rows: int,
    newer_mean: np.ndarray,
    newer_squares: np.ndarray,
    newer_rows: int,
    windows: int,
    out: np.ndarray,
) -> None:
    """Merge the moments of two adjacent windows (Chan, Golub and LeVeque 1979)."""
    share = newer_rows / (older_rows + newer_rows)
    older_mean, older_squares = older[0], older[1]
    mean, squares = out[0], out[1]
    # Two loops: in one, too many arrays might overlap for the compiler to vectorise it.
    for i in range(windows):
        mean[i] = older_mean[i] + (newer_mean[i] - older_mean[i]) * share
    for i in range(windows):
        apart = newer_mean[i] - older_mean[i]
        squares[i] = older_squares[i] + newer_squares[i] + apart * apart * (share * older_rows)


@compiled
def rolling_sum(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Sum of the last `n` rows; NaN if the window is not full or contains a NaN.

    Windows are added up along the binary digits of `n`, as those of `rolling_moments`.
    """
    out = np.full(x.size, np.nan)
    top = 1
    while top * 2 <= n:
        top *= 2
    for asset in range(offsets.size - 1):
        rows = x[offsets[asset] : offsets[asset + 1]]
        if rows.size < n:
            continue
        now = rows.copy()  # now[i] is the sum of rows[i : i + size]
        size, digit = 1, top // 2
        while digit > 0:
            now = now[: now.size - size] + now[size:]
            size *= 2
            if n & digit:
                now = now[: now.size - 1] + rows[size:]
                size += 1
            digit //= 2
        out[offsets[asset] + n - 1 : offsets[asset + 1]] = now
    return out


@compiled
def rolling_max(x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Maximum of the last `n` rows, the current one included; NaN if any of them is NaN.

    Windows are doubled while they fit, and two of the longest that overlap make one of `n` rows: 11
    passes for 1,000 rows.
    """
    out = np.full(x.size, np.nan)
    for asset in range(offsets.size - 1):
        rows = x[offsets[asset] : offsets[asset + 1]]
        if rows.size < n:
            continue
        now = rows.copy()  # now[i] is the maximum of rows[i : i + size]
        size = 1
        while size * 2 <= n:
            for i in range(rows.size - 2 * size + 1):
                now[i] = _greater(now[i], now[i + size])
            size *= 2
        for i in range(rows.size - n + 1):
            out[offsets[asset] + n - 1 + i] = _greater(now[i], now[i + n - size])
    return out


@compiled
def _greater(a: float, b: float) -> float:
    """The greater of two numbers; NaN if one is NaN."""
    return a if a > b or np.isnan(a) else b


@compiled
def crosses_above(x: np.ndarray, y: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whether x crosses above y at each row, bool; False if any of the four values is NaN."""
    out = np.zeros(x.size, np.bool_)
    for asset in range(offsets.size - 1):
        for t in range(offsets[asset] + 1, offsets[asset + 1]):
            out[t] = x[t] > y[t] and x[t - 1] <= y[t - 1]
    return out
