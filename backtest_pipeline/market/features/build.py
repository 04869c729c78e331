"""Compute all features of a panel of bars."""

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
        A panel of the same rows. Numbers are float64, NaN where undefined, never infinite; flags
        are bool, False where undefined. A price that is not a positive number is kept as it is,
        and every feature that needs it is undefined. Columns that are equal by definition share
        one array, so treat them as read-only.

    Raises:
        InvalidInput: for a missing column.
    """
    # The recursions import numba, which takes a second.
    from backtest_pipeline.market.features.recursions import Recursions

    return features_of(bars, Recursions.whole(np.asarray(bars.offsets, np.int64)))


def features_of(bars: Panel, recursions: Recursions) -> Panel:
    """As `build_features`, with recursions that may resume from an earlier pass."""
    from backtest_pipeline.market.features import measures

    missing = [name for name in OHLCV if name not in bars.columns]
    if missing:
        raise InvalidInput(
            f"the {bars.timeframe.name} bars have no column {', '.join(missing)}; "
            f"features need {', '.join(OHLCV)}"
        )
    prices = _positive_prices(bars)
    offsets = prices.offsets
    # Undefined values are expected here, and become NaN at the end.
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
    columns = {name: _finite_or_nan(column) for name, column in columns.items()}
    columns |= {name: bars[name] for name in OHLCV}
    columns["gap_bars"] = np.asarray(
        bars.columns.get("gap_bars", np.full(len(bars), np.nan)), np.float64
    )
    columns["has_price_gap"] = columns["gap_bars"] > 0
    columns["has_outlier"] = np.logical_or.reduce(
        [flag for name, flag in columns.items() if name.endswith("_is_outlier")]
    )
    columns |= _roll_columns(columns)
    return Panel(
        bars.timeframe,
        bars.assets,
        bars.offsets,
        bars.ts,
        {feature.name: columns[feature.name] for feature in FEATURES},
    )


def _positive_prices(bars: Panel) -> Panel:
    """The prices of the bars, NaN where not a positive number; writable and contiguous."""

    def positive(price: np.ndarray) -> np.ndarray:
        return np.where((price > 0) & (price < np.inf), price, np.nan)

    columns = {name: positive(bars[name]) for name in ("open", "high", "low", "close")}
    return Panel(bars.timeframe, bars.assets, np.array(bars.offsets, np.int64), bars.ts, columns)


def _finite_or_nan(column: np.ndarray) -> np.ndarray:
    """The column, in place, with one bit pattern of NaN where not finite; flags unchanged."""
    if column.dtype == np.bool_:
        return column
    column[~np.isfinite(column)] = np.nan
    return column


def _roll_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The `_roll` columns: equal to the plain ones, since the table holds complete bars only."""
    twins = {f"{name}_roll": columns[name] for name in RETURNS}
    for name in Z_SCORED_RETURNS:
        for n in RETURN_Z_WINDOWS:
            twins[f"{name}_roll_zscore_{n}"] = columns[f"{name}_zscore_{n}"]
    return twins
