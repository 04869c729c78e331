"""From a panel of bars to the panel of all features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features.catalogue import (
    FEATURES,
    RETURN_Z_WINDOWS,
    RETURNS,
    Z_SCORED_RETURNS,
)
from backtest_pipeline.market.panel import OHLCV, Panel

if TYPE_CHECKING:
    from backtest_pipeline.market.features.recursions import Recursions


def build_features(bars: Panel) -> Panel:
    """All feature columns of the bars, in the order of `FEATURES`.

    Args:
        bars: float64 columns open, high, low, close, volume, and gap_bars where known.

    Returns:
        A panel of the same rows. Numbers are float64 and NaN where undefined, never infinite;
        flags are bool, and False where undefined. A price that is not a positive number is
        passed through as it is, and every measure that needs it is undefined. Columns that are
        equal by definition share one array, so treat them as read-only.

    Raises:
        InvalidInput: for a missing column.
    """
    # With the recursions comes numba, which takes a second to import.
    from backtest_pipeline.market.features.recursions import Recursions

    return built(bars, Recursions.whole(np.asarray(bars.offsets, np.int64)))


def built(bars: Panel, recursions: Recursions) -> Panel:
    """As `build_features`, with recursions that may go on from an earlier pass."""
    from backtest_pipeline.market.features import measures

    missing = [name for name in OHLCV if name not in bars.columns]
    if missing:
        raise InvalidInput(
            f"bars at {bars.timeframe.name} have no column {', '.join(missing)}; "
            f"features need {', '.join(OHLCV)}"
        )
    prices = _trusted(bars)
    offsets = prices.offsets
    # What is undefined is expected here, and becomes NaN at the end.
    with np.errstate(all="ignore"):
        columns = measures.returns(prices)
        columns |= measures.return_zscores(columns, offsets)
        volatility = measures.volatilities(
            prices, columns["ret_log"], columns["true_range"], recursions
        )
        columns |= volatility
        columns |= measures.volatility_zscores(volatility, offsets)
        columns |= measures.oscillators(prices, recursions)
        columns |= measures.averages(prices, recursions)
    columns = {name: _defined(column) for name, column in columns.items()}
    columns |= {name: bars[name] for name in OHLCV}
    columns["gap_bars"] = np.asarray(
        bars.columns.get("gap_bars", np.full(len(bars), np.nan)), np.float64
    )
    columns["has_price_gap"] = columns["gap_bars"] > 0
    columns["has_outlier"] = np.logical_or.reduce(
        [flag for name, flag in columns.items() if name.endswith("_is_outlier")]
    )
    columns |= _rolled(columns)
    return Panel(
        bars.timeframe,
        bars.assets,
        bars.offsets,
        bars.ts,
        {feature.name: columns[feature.name] for feature in FEATURES},
    )


def _trusted(bars: Panel) -> Panel:
    """The bars with prices that are positive numbers, or else NaN; writable and contiguous."""

    def positive(price: np.ndarray) -> np.ndarray:
        return np.where((price > 0) & (price < np.inf), price, np.nan)

    columns = {name: positive(bars[name]) for name in ("open", "high", "low", "close")}
    return Panel(bars.timeframe, bars.assets, np.array(bars.offsets, np.int64), bars.ts, columns)


def _defined(column: np.ndarray) -> np.ndarray:
    """Everything that is not a number becomes the one NaN; flags stay as they are."""
    if column.dtype == np.bool_:
        return column
    column[~np.isfinite(column)] = np.nan
    return column


def _rolled(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The `_roll` twins: over all rows of the table, which are complete bars only, hence equal."""
    twins = {f"{name}_roll": columns[name] for name in RETURNS}
    for name in Z_SCORED_RETURNS:
        for n in RETURN_Z_WINDOWS:
            twins[f"{name}_roll_zscore_{n}"] = columns[f"{name}_zscore_{n}"]
    return twins
