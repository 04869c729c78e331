"""Funding rates: what a position pays or receives for being held."""

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
_LONGEST_HOLE = 4  # in usual distances between two rates


@dataclass(frozen=True)
class FundingRates:
    """Rates by symbol, each charged once, at its stamp.

    Attributes:
        ts: for each symbol int64 microseconds UTC, ascending, whole minutes.
        rate: for each symbol fractions of the notional, which longs pay and shorts receive.
    """

    ts: Mapping[str, np.ndarray]
    rate: Mapping[str, np.ndarray]

    def version(self, symbol: str) -> str:
        """Hash of the rates of one symbol."""
        digest = hashlib.sha256(self.ts[symbol].astype("<i8").tobytes())
        digest.update(self.rate[symbol].astype("<f8").tobytes())
        return digest.hexdigest()[:32]

    def require_cover(self, panel: Panel) -> None:
        """Raises InvalidInput where an asset's rates do not span its bars, or leave a hole."""
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
                    f"{asset}: the funding rates run from {first} to {last} and do not cover the "
                    f"bars; cut the window, or charge a flat rate"
                )
            within = ts[(ts >= start[0] - usual) & (ts <= end[-1] + usual)]
            holes = np.flatnonzero(np.diff(within) > _LONGEST_HOLE * usual)
            if len(holes):
                since, until = within[holes[0] : holes[0] + 2].view("M8[us]").astype("M8[m]")
                raise InvalidInput(
                    f"{asset}: no funding rates between {since} and {until} UTC, and "
                    f"{len(holes) - 1} more holes; fill them, with 0 where none was charged"
                )

    @staticmethod
    def of(rates: Mapping[str, pd.Series]) -> FundingRates:
        """Rates from one series by symbol, indexed by tz-aware stamps.

        Stamps are rounded to the minute: exchanges write them some milliseconds late, which would
        put them into the next bar.

        Raises:
            InvalidInput: for naive, unsorted or repeated stamps, or rates that are no numbers.
        """
        ts, values = {}, {}
        for symbol, series in rates.items():
            stamps = stamps_us(series.index, symbol)
            stamps = (stamps + _MINUTE_US // 2) // _MINUTE_US * _MINUTE_US
            if np.any(np.diff(stamps) <= 0):
                raise InvalidInput(
                    f"{symbol}: funding stamps are not strictly increasing by the minute; sort "
                    "them and drop duplicates"
                )
            rate = series.to_numpy(np.float64, na_value=np.nan)
            if not np.all(np.abs(rate) < 1):
                raise InvalidInput(
                    f"{symbol}: {np.sum(~(np.abs(rate) < 1))} rates are no fractions between -1 "
                    "and 1; 0.01 % is 0.0001"
                )
            ts[symbol], values[symbol] = stamps, rate
        return FundingRates(ts, values)


def _no_rates(asset: str, known: Mapping[str, np.ndarray]) -> str:
    return f"{asset}: no funding rates; the table has {', '.join(known) or 'none'}"


def funding_of_bars(
    panel: Panel, funding_bps_day: float, rates: FundingRates | None
) -> tuple[np.ndarray, np.ndarray]:
    """Fraction of its notional that a long pays for each bar, and for the hole before it.

    The sum of the rates in (open, close] of the bar, or the flat rate for the bar's days; and the
    same from the end of the asset's bar before to the open, which is 0 where no bar is missing.

    Returns:
        Two arrays float64 `(n_rows,)`.

    Raises:
        InvalidInput: for an asset whose bars the table of rates does not cover.
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
    # By segment and not by name: an asset's windows are segments of the same name.
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
