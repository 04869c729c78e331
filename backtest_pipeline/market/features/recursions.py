"""Recursive averages whose state can be saved, and resumed from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from backtest_pipeline.market.features import kernels


@dataclass
class Recursions:
    """The recursive averages of one pass over a panel, in the order of their computation.

    Attributes:
        begin: int64 `(n_assets,)`, row at which each asset's averages resume; NaN before it.
        mark: int64 `(n_assets,)`, row whose incoming state is saved; `begin` or later.
        standing: float64 `(n_averages, n_assets, 2)`, state before `begin`: the number of values
            seen and the level; empty if all averages start at their first row.
        noted: the state before `mark`, float64 `(n_assets, 2)` per average computed so far.
    """

    begin: np.ndarray
    mark: np.ndarray
    standing: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 2)))
    noted: list[np.ndarray] = field(default_factory=list)

    @staticmethod
    def whole(offsets: np.ndarray) -> Recursions:
        """Averages over each asset's whole history."""
        return Recursions(offsets[:-1], offsets[1:])

    def ema(self, x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
        """Exponential moving average; see `rolling.ema`."""
        return self._smoothed(x, offsets, n, 2 / (n + 1))

    def wilder(self, x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
        """Wilder's average; see `rolling.wilder`."""
        return self._smoothed(x, offsets, n, 1 / n)

    def _smoothed(self, x: np.ndarray, offsets: np.ndarray, n: int, weight: float) -> np.ndarray:
        nth = len(self.noted)
        state = self.standing[nth].copy() if len(self.standing) else np.zeros((len(self.begin), 2))
        smoothed = kernels.resume_smooth(x, offsets, n, weight, self.begin, self.mark, state)
        self.noted.append(state)
        return smoothed
