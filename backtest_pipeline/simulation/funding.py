"""Funding rates: payments between longs and shorts of perpetual futures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel, stamps_us
from backtest_pipeline.market.timeframes import DAY_US

_MINUTE_US = 60_000_000
_LONGEST_GAP = 4  # as a multiple of the median distance between two rates


@dataclass(frozen=True)
class FundingRates:
    """Funding rates by symbol, each charged once, at its timestamp.

    Attributes:
        ts: int64 `(n_rates,)` by symbol, microseconds since 1970 UTC, ascending, whole minutes.
        rate: float64 `(n_rates,)` by symbol, fractions of notional that longs pay to shorts.
    """

    ts: Mapping[str, np.ndarray]
    rate: Mapping[str, np.ndarray]

    def version(self, symbol: str) -> str:
        """Hash of the rates of one symbol."""
        digest = hashlib.sha256(self.ts[symbol].astype("<i8").tobytes())
        digest.update(self.rate[symbol].astype("<f8").tobytes())
        return digest.hexdigest()[:32]

    def require_cover(self, panel: Panel) -> None:
        """Raises InvalidInput if the rates of an asset do not span its bars, or have a long gap."""
        for asset, start, end in zip(panel.assets, panel.offsets, panel.offsets[1:], strict=False):
            ts, bars = self.ts.get(asset, np.empty(0, np.int64)), panel.ts[start:end]
            if len(bars) == 0:
                continue
            if len(ts) == 0:
                raise InvalidInput(_no_rates(asset, self.ts))
            start, end = panel.timeframe.period_bounds(bars[[0, -1]])
            usual = np.median(np.diff(ts)) if len(ts) > 1 else DAY_US
            if ts[0] > end[0] + usual or ts[-1] < start[-1] - usual:
                first, last = ts[[0, -1]].view("M8[us]").astype("M8[D]")
                raise InvalidInput(
                    f"{asset}: the funding rates run from {first} to {last} and do not cover all "
                    "bars; shorten the window, or use a flat rate"
                )
            within = ts[(ts >= start[0] - usual) & (ts <= end[-1] + usual)]
            gaps = np.flatnonzero(np.diff(within) > _LONGEST_GAP * usual)
            if len(gaps):
                since, until = within[gaps[0] : gaps[0] + 2].view("M8[us]").astype("M8[m]")
                others = f" (and {len(gaps) - 1} more gaps)" if len(gaps) > 1 else ""
                raise InvalidInput(
                    f"{asset}: no funding rates between {since} and {until} UTC{others}; add the "
                    "missing rates, 0 if none was charged"
                )

    @staticmethod
    def of(rates: Mapping[str, pd.Series]) -> FundingRates:
        """Rates from one series per symbol, indexed by tz-aware timestamps.

        Timestamps are rounded to the minute: exchanges publish them some milliseconds late, which
        would put them into the next bar.

        Raises:
            InvalidInput: for timestamps without a time zone, unsorted or repeated, or rates that
                are not fractions between -1 and 1.
        """
        ts, values = {}, {}
        for symbol, series in rates.items():
            stamps = stamps_us(series.index, symbol)
            stamps = (stamps + _MINUTE_US // 2) // _MINUTE_US * _MINUTE_US
            if np.any(np.diff(stamps) <= 0):
                raise InvalidInput(
                    f"{symbol}: funding timestamps, rounded to the minute, are not strictly "
                    "increasing; sort them and drop duplicates"
                )
            rate = series.to_numpy(np.float64, na_value=np.nan)
            if not np.all(np.abs(rate) < 1):
                raise InvalidInput(
                    f"{symbol}: {np.sum(~(np.abs(rate) < 1))} funding rates are not fractions "
                    "between -1 and 1; 0.01 % is 0.0001"
                )
            ts[symbol], values[symbol] = stamps, rate
        return FundingRates(ts, values)


def _no_rates(asset: str, known: Mapping[str, np.ndarray]) -> str:
    return f"{asset}: no funding rates; there are rates for {', '.join(known) or 'no symbol'}"


def funding_of_bars(
    panel: Panel, funding_bps_day: float, rates: FundingRates | None
) -> tuple[np.ndarray, np.ndarray]:
    """Fraction of notional that a long pays for holding each bar, and for the hole before it.

    The sum of the rates in (open, close] of the bar, or the flat rate times the bar's days; and the
    same from the end of the asset's previous bar to the open, which is 0 where no bar is missing.

    Args:
        panel: the bars.
        funding_bps_day: flat rate, basis points per day; used if `rates` is None.
        rates: funding rates by symbol.

    Returns:
        Two arrays float64 `(n_rows,)`.

    Raises:
        InvalidInput: for an asset whose bars the rates do not cover.
    """
    start, end = panel.timeframe.period_bounds(panel.ts)
    before = np.roll(end, 1)
    firsts = panel.offsets[:-1][panel.lengths > 0]
    before[firsts] = start[firsts]
    if rates is None:
        a_day = funding_bps_day / 1e4
        return a_day * (end - start) / DAY_US, a_day * (start - before) / DAY_US
    rates.require_cover(panel)
    charged, in_holes = np.zeros(len(panel)), np.zeros(len(panel))
    # By segment, not by name: windows of one asset are segments of the same name.
    for asset, first, last in zip(panel.assets, panel.offsets, panel.offsets[1:], strict=False):
        rows = slice(int(first), int(last))
        if rows.start == rows.stop:
            continue
        ts, rate = rates.ts[asset], rates.rate[asset]
        n, bar = rows.stop - rows.start, np.searchsorted(end[rows], ts)
        ts, rate, bar = ts[bar < n], rate[bar < n], bar[bar < n]
        within = ts > start[rows][bar]
        charged[rows] = np.bincount(bar[within], rate[within], n)
        missed = ~within & (ts > before[rows][bar])
        in_holes[rows] = np.bincount(bar[missed], rate[missed], n)
    return charged, in_holes
