"""The feature formulas: prices in, named columns out.

`prices` is a panel whose open, high, low and close are positive or NaN. `catalogue` lists the
definitions, windows and sources, and generates docs/features.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backtest_pipeline.market.features.catalogue import (
    EMA_PERIODS,
    OUTLIER_Z,
    RETURN_Z_WINDOWS,
    VOLATILITY_WINDOWS,
    Z_SCORED_RETURNS,
    Z_WINDOW,
)
from backtest_pipeline.market.features.recursions import Recursions
from backtest_pipeline.market.features.rolling import (
    change,
    deviation,
    highest,
    lowest,
    mean,
    previous,
    ratio,
    wilder,
    zscore,
)
from backtest_pipeline.market.panel import Panel

Columns = dict[str, np.ndarray]
Average = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Takes a column, its offsets and a number of rows; returns the average of the column."""


def returns(prices: Panel) -> Columns:
    """Price changes, returns and ranges of each bar."""
    high, low, close, offsets = prices["high"], prices["low"], prices["close"], prices.offsets
    before = previous(close, offsets)
    delta1 = close - before
    ret_arith = close / before - 1
    ret_log = change(np.log(close), offsets)
    ranges = true_range(prices)
    return {
        "delta1": delta1,
        "delta2": change(delta1, offsets),
        "ret_arith": ret_arith,
        "delta_ret_arith": change(ret_arith, offsets),
        "ret_log": ret_log,
        "delta_ret_log": change(ret_log, offsets),
        "range": high - low,
        "range_pct": (high - low) / close,
        "true_range": ranges,
        "true_range_pct": ranges / close,
    }


def true_range(prices: Panel) -> np.ndarray:
    """Wilder's true range; NaN on an asset's first bar, which has no previous close."""
    before = previous(prices["close"], prices.offsets)
    return np.maximum(prices["high"], before) - np.minimum(prices["low"], before)


def return_zscores(measured: Columns, offsets: np.ndarray) -> Columns:
    """Z-scores of returns and of their changes, and the outlier flag of returns."""
    scores = {
        f"{name}_zscore_{n}": zscore(measured[name], offsets, n)
        for name in Z_SCORED_RETURNS
        for n in RETURN_Z_WINDOWS
    }
    return {**scores, "ret_is_outlier": outlying(scores["ret_log_zscore_90"])}


def volatilities(
    prices: Panel, ret_log: np.ndarray, true_range: np.ndarray, recursions: Recursions
) -> Columns:
    """Annualised volatility, from bar ranges and from log returns, and the ATR."""
    offsets, per_year = prices.offsets, prices.timeframe.bars_per_year
    open_, high, low, close = (np.log(prices[name]) for name in ("open", "high", "low", "close"))
    bar_variance = {
        "parkinson": (high - low) ** 2 / (4 * np.log(2)),
        "gk": (high - low) ** 2 / 2 - (2 * np.log(2) - 1) * (close - open_) ** 2,
        "rs": (high - close) * (high - open_) + (low - close) * (low - open_),
    }
    columns = {
        f"vol_{name}_{n}": np.sqrt(mean(variance, offsets, n) * per_year)
        for name, variance in bar_variance.items()
        for n in VOLATILITY_WINDOWS
    }
    for n in VOLATILITY_WINDOWS:
        columns[f"vol_log_roll_{n}"] = deviation(ret_log, offsets, n) * np.sqrt(per_year)
    return {**columns, "atr_14": recursions.wilder(true_range, offsets, 14)}


def volatility_zscores(measured: Columns, offsets: np.ndarray) -> Columns:
    """Z-score of each volatility within its last 365 bars, and its outlier flag."""
    columns: Columns = {}
    for name, volatility in measured.items():
        score = zscore(volatility, offsets, Z_WINDOW)
        columns[f"{name}_zscore"] = score
        columns[f"{name}_is_outlier"] = outlying(score)
    return columns


def oscillators(prices: Panel, recursions: Recursions) -> Columns:
    """RSI with its z-score and outlier flag, ADX and stochastics."""
    close, offsets = prices["close"], prices.offsets
    columns = {f"rsi_{n}": rsi(close, offsets, n, recursions.wilder) for n in (7, 14, 21)}
    columns["rsi_14_zscore"] = zscore(columns["rsi_14"], offsets, Z_WINDOW)
    columns["ta_is_outlier"] = outlying(columns["rsi_14_zscore"])
    columns["adx_14"] = adx(prices["high"], prices["low"], offsets, 14, recursions.wilder)
    top, bottom = highest(prices["high"], offsets, 14), lowest(prices["low"], offsets, 14)
    columns["stoch_k_14"] = 100 * ratio(close - bottom, top - bottom)
    columns["stoch_d_3"] = mean(columns["stoch_k_14"], offsets, 3)
    return columns


def averages(prices: Panel, recursions: Recursions) -> Columns:
    """EMAs, MACD and Bollinger bands."""
    close, offsets, ema = prices["close"], prices.offsets, recursions.ema
    columns = {f"ema_{n}": ema(close, offsets, n) for n in EMA_PERIODS}
    for fast, slow, signal_name in ((12, 26, "macd_signal_9"), (8, 17, "macd_signal_9_fast")):
        macd = ema(close, offsets, fast) - ema(close, offsets, slow)
        signal = ema(macd, offsets, 9)
        columns[f"macd_{fast}_{slow}"] = macd
        columns[signal_name] = signal
        columns[f"macd_hist_{fast}_{slow}_9"] = macd - signal
    return {**columns, **bollinger(close, offsets)}


def rsi(close: np.ndarray, offsets: np.ndarray, n: int, average: Average = wilder) -> np.ndarray:
    """Wilder's relative strength index, 0 to 100.

    100 if there was no loss; NaN if the price has not moved at all.
    """
    move = change(close, offsets)
    gain = average(np.maximum(move, 0), offsets, n)
    loss = average(np.maximum(-move, 0), offsets, n)
    return 100 * ratio(gain, gain + loss)


def adx(
    high: np.ndarray, low: np.ndarray, offsets: np.ndarray, n: int, average: Average = wilder
) -> np.ndarray:
    """Wilder's average directional index, 0 to 100; 0 if the price has not moved.

    The true range divides both directional indicators, so it cancels out of DX.
    """
    up, down = change(high, offsets), -change(low, offsets)
    undefined = np.isnan(up + down)
    rising = np.where(undefined, np.nan, np.where((up > down) & (up > 0), up, 0))
    falling = np.where(undefined, np.nan, np.where((down > up) & (down > 0), down, 0))
    plus, minus = average(rising, offsets, n), average(falling, offsets, n)
    moved = plus + minus
    dx = 100 * np.where(moved == 0, 0, ratio(np.abs(plus - minus), moved))
    return average(dx, offsets, n)


def bollinger(close: np.ndarray, offsets: np.ndarray) -> Columns:
    """Bollinger bands: 20-bar mean plus and minus two standard deviations (ddof 0)."""
    middle = mean(close, offsets, 20)
    spread = 2 * deviation(close, offsets, 20) * np.sqrt(19 / 20)
    return {
        "bb_ma_20": middle,
        "bb_up_20_2": middle + spread,
        "bb_lo_20_2": middle - spread,
        "bb_width_20": 2 * spread / middle,
    }


def outlying(score: np.ndarray) -> np.ndarray:
    """Whether a z-score is beyond OUTLIER_Z; False where undefined."""
    return np.abs(score) > OUTLIER_Z
