"""Averages into which all earlier rows weigh: noted where they stand, and resumed from there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from backtest_pipeline.market.features import kernels


@dataclass
class Recursions:
    """The recursive averages of one pass over a panel, in the order in which they are asked for.

    Attributes:
        begin: int64 `(n_assets,)`, the row at which each asset's averages go on; before it they
            are NaN.
        mark: int64 `(n_assets,)`, the row before which they are noted; `begin` or later.
        standing: float64 `(n_averages, n_assets, 2)`, how many values each has seen before `begin`
            and its level; empty where they all begin with their first row.
        noted: the same before `mark`, one array for each average that was asked for.
    """

    begin: np.ndarray
    mark: np.ndarray
    standing: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 2)))
    noted: list[np.ndarray] = field(default_factory=list)

    @staticmethod
    def whole(offsets: np.ndarray) -> Recursions:
        """From each asset's first row to its last."""
        return Recursions(offsets[:-1], offsets[1:])

    def ema(self, x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
        """Exponential moving average, as `rolling.ema`."""
        return self._smoothed(x, offsets, n, 2 / (n + 1))

    def wilder(self, x: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
        """Wilder's average, as `rolling.wilder`."""
        return self._smoothed(x, offsets, n, 1 / n)

    def _smoothed(self, x: np.ndarray, offsets: np.ndarray, n: int, weight: float) -> np.ndarray:
        nth = len(self.noted)
        state = self.standing[nth].copy() if len(self.standing) else np.zeros((len(self.begin), 2))
        smoothed = kernels.resume_smooth(x, offsets, n, weight, self.begin, self.mark, state)
        self.noted.append(state)
        return smoothed
