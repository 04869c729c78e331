"""Bars of longer timeframes, as a rule on shorter ones knows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features.derive import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.row_keys import row_keys
from backtest_pipeline.market.timeframes import timeframe


class LongerBars:
    """A panel's bars at longer timeframes, each made once.

    Args:
        panel: the bars of a rule, from each asset's first one on.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._bars: dict[str, Panel | None] = {}
        self._closed: dict[str, np.ndarray] = {}

    def bars(self, name: str, columns: Sequence[str]) -> Panel | None:
        """The complete bars of a timeframe with these features.

        None where it is shorter than the panel's, or does not consist of whole bars of it.

        Raises:
            InvalidInput: for a column that bars do not give.
        """
        if name not in self._bars:
            self._bars[name] = self._made(name)
        bars = self._bars[name]
        if bars is not None:
            bars = self._bars[name] = with_indicators(bars, columns)
        return bars

    def _made(self, name: str) -> Panel | None:
        target = timeframe(name)
        if target == self._panel.timeframe:
            return self._panel
        try:
            return resample(self._panel, target)
        except InvalidInput:
            return None

    def known(self, bars: Panel, column: np.ndarray) -> np.ndarray:
        """A column of longer bars at each row of the panel: of the last one closed by then.

        Returns:
            `(n_rows,)`; NaN or False before the first.
        """
        name = bars.timeframe.name
        if name not in self._closed:
            self._closed[name] = self._last_closed(bars)
        rows = self._closed[name]
        found = column[rows] if len(column) else np.zeros(len(rows), column.dtype)
        found[rows < 0] = False if column.dtype == np.bool_ else np.nan
        return found

    def _last_closed(self, bars: Panel) -> np.ndarray:
        """The row of the last of the longer bars closed at each row of the panel; -1 before it."""
        panel = self._panel
        if not len(bars):
            return np.full(len(panel), -1)
        segment = panel.segment_of_row
        keys, closes = row_keys((segment, panel.ts), (bars.segment_of_row, bars.ts))
        known_from = np.searchsorted(keys, closes)
        rows = np.cumsum(np.bincount(known_from, minlength=len(panel))[: len(panel)]) - 1
        return np.where(rows >= bars.offsets[segment], rows, -1)

    def nowhere(self, is_number: bool) -> np.ndarray:
        """A column that is undefined at each row of the panel."""
        n = len(self._panel)
        return np.full(n, np.nan) if is_number else np.zeros(n, bool)
