"""Assets measured among each other, at the same bar."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import Panel

_RANK = "rank_pct("


def is_rank(column: str) -> bool:
    """Whether a column is a rank among all assets, which the bars of one asset do not give.

    Its name says what is ranked, in the language of docs/rules.md.

    Examples:
        >>> is_rank("rank_pct(close / shift(close, 90))"), is_rank("rsi_14")
        (True, False)
    """
    return column.startswith(_RANK)


def rank_pct(universe: Panel, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The percentile rank of each value among the assets that have one at the same bar.

    Bars are the same where their periods are, even if their closes are stamped a second apart.

    Args:
        universe: the assets to rank.
        columns: numbers `(n_rows,)` at its rows, by name; NaN is neither ranked nor counted.

    Returns:
        float64 `(n_rows,)` by name, above 0 and up to 1, NaN where the value is: as
        `pandas.Series.rank(pct=True)` at each bar. Equal values have the mean of their ranks, and
        an asset that is alone at its bar has 1.
    """
    if not columns:
        return {}
    bars, _ = universe.timeframe.period_bounds(universe.ts)
    ranked = pd.DataFrame(dict(columns), copy=False).groupby(bars).rank(pct=True)
    return {name: ranked[name].to_numpy() for name in columns}
