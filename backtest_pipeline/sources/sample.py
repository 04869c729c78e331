"""A synthetic market for demos and tests: bars that never were, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from backtest_pipeline.market.asset_identity import remarks_on
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, MICROSECONDS, timeframe
from backtest_pipeline.market.validation import validate_bars
from backtest_pipeline.sources.base import AssetInfo, SourceBars, require_known

SEED = 20_251_231
SIGNIFICANT_DIGITS = 8


def _us(text: str) -> int:
    return int(np.datetime64(text, "us").astype(np.int64))


DAILY_FROM_US, HOURLY_FROM_US, END_US = (
    _us(day) for day in ("2020-01-01", "2024-01-01", "2026-01-01")
)


@dataclass(frozen=True)
class _Asset:
    """An invented asset: drift and volatility are annual fractions, beta is to the market."""

    symbol: str
    listed: str
    price: float
    beta: float
    drift: float
    volatility: float
    hourly: bool = False
    delisted: str = "2026-01-01"

    @property
    def info(self) -> AssetInfo:
        letter = self.symbol.removeprefix("S-").capitalize()
        return AssetInfo(self.symbol, f"{letter} (synthetic)", "crypto", None, synthetic=True)


_ASSETS = (
    _Asset("S-ALPHA", "2020-01-01", 7200.0, 1.0, 0.00, 0.15, hourly=True),
    _Asset("S-BETA", "2020-01-01", 130.0, 1.2, 0.05, 0.35, hourly=True),
    _Asset("S-DELTA", "2020-03-16", 0.19, 1.1, -0.10, 0.60, hourly=True),
    _Asset("S-EPSILON", "2020-08-11", 2.85, 1.5, 0.30, 0.80, hourly=True),
    _Asset("S-ETA", "2020-11-02", 0.0023, 1.3, 0.00, 0.95),
    _Asset("S-GAMMA", "2020-01-01", 14.0, 0.9, 0.10, 0.45),
    _Asset("S-IOTA", "2021-02-19", 31.0, 0.7, -0.20, 0.50),
    _Asset("S-KAPPA", "2021-07-01", 480.0, 0.4, 0.05, 0.25),
    _Asset("S-LAMBDA", "2022-01-05", 1.0, 0.01, 0.00, 0.01),
    _Asset("S-MU", "2022-05-27", 5.9, 1.4, -0.60, 0.85, delisted="2025-05-12T14:00"),
    _Asset("S-THETA", "2023-03-22", 1.4, 1.1, 0.20, 0.70),
    _Asset("S-ZETA", "2024-08-15T10:00", 88.0, 1.6, 0.10, 0.90, hourly=True),
)

# Drift and volatility of the whole market, a year, from each day on.
_REGIMES = (
    ("2020-01-01", 0.90, 0.60),  # bull
    ("2021-05-01", -0.10, 1.10),  # high volatility
    ("2021-11-01", -0.90, 0.70),  # bear
    ("2022-12-01", 0.00, 0.35),  # range
    ("2023-10-01", 0.80, 0.50),  # bull
    ("2024-06-01", 0.00, 0.40),  # range
    ("2024-11-01", 0.50, 0.95),  # high volatility
    ("2025-04-01", -0.60, 0.55),  # bear
    ("2025-08-01", 0.10, 0.30),  # range
)

# No bars of these assets (or of all) in [start, end), as in a maintenance or a halt.
_OUTAGES = (
    (None, "2024-05-14T02:00", "2024-05-14T08:00"),
    ("S-KAPPA", "2022-09-26", "2022-10-03"),
    ("S-DELTA", "2025-03-08T00:00", "2025-03-09T10:00"),
    ("S-EPSILON", "2024-10-02T17:00", "2024-10-02T20:00"),
)


class SampleMarket:
    """Twelve invented assets with daily bars for six years, five of them hourly for two.

    They share one market factor that goes through bull, bear, range and high volatility. They
    differ in listing date, drift and volatility; some have holes and one is delisted. Daily bars
    are the resampled hourly ones from 2024 on. The last bar is that of 2025-12-31.

    Nothing beyond IEEE arithmetic on PCG64 integers makes the numbers (no `exp`, `log` or
    `standard_normal`, whose last bit differs among platforms), so they are equal everywhere.
    """

    name = "sample"
    synthetic = True

    def symbols(self) -> tuple[str, ...]:
        """The assets, sorted."""
        return tuple(asset.symbol for asset in _ASSETS)

    def states(self, assets: Sequence[str]) -> dict[str, str]:
        """One for all: the market is the same as long as what makes it is."""
        return dict.fromkeys(assets, f"sample {_code()}")

    def read(self, assets: Sequence[str] | None = None) -> SourceBars:
        """The bars of the named assets, or of all.

        Raises:
            UnknownName: for an asset it does not have.
        """
        wanted = self.symbols() if assets is None else tuple(sorted(set(assets)))
        require_known(wanted, self.symbols())
        chosen = [asset for asset in _ASSETS if asset.symbol in wanted]
        daily, hourly = _market()
        raw = {
            "1H": hourly.select([asset.symbol for asset in chosen if asset.hourly]),
            "1D": daily.select(wanted),
        }
        validated = {name: validate_bars(panel, END_US) for name, panel in raw.items()}
        panels = {name: panel for name, (panel, _) in validated.items() if len(panel)}
        newest = dict.fromkeys(panels, END_US - CLOSE_STAMP_US)
        return SourceBars(
            panels=panels,
            remarks=remarks_on(panels, self.symbols(), {}, newest),
            assets=tuple(asset.info for asset in chosen),
            issues=tuple(issue for _, found in validated.values() for issue in found),
        )


@cache
def _code() -> str:
    """Hash of this file."""
    return blake2b(Path(__file__).read_bytes(), digest_size=16).hexdigest()


def _market() -> tuple[Panel, Panel]:
    """Daily and hourly bars of all assets."""
    early = np.arange(DAILY_FROM_US, HOURLY_FROM_US, DAY_US)
    late = np.arange(HOURLY_FROM_US, END_US, MICROSECONDS["H"])
    start = np.concatenate([early, late])
    length = np.repeat([DAY_US, MICROSECONDS["H"]], [len(early), len(late)])
    bars = _bars(start, length)
    alive = _alive(start)
    cut = len(early)
    days = _panel("1D", start[:cut], alive[:cut], {k: v[:cut] for k, v in bars.items()})
    hours = _panel("1H", start[cut:], alive[cut:], {k: v[cut:] for k, v in bars.items()})
    return _joined(days, resample(hours, timeframe("1D"))), hours


def _bars(start: np.ndarray, length: np.ndarray) -> dict[str, np.ndarray]:
    """OHLCV arrays of shape (steps, assets), without gaps, one path through both lengths."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    steps, assets = len(start), len(_ASSETS)
    years = (length / MICROSECONDS["Y"])[:, None]
    regime = np.searchsorted([_us(day) for day, _, _ in _REGIMES], start, side="right") - 1
    market_drift = np.array([drift for _, drift, _ in _REGIMES])[regime][:, None]
    market_volatility = np.array([volatility for _, _, volatility in _REGIMES])[regime][:, None]
    beta, drift, volatility, price = (
        np.array([getattr(asset, field) for asset in _ASSETS])
        for field in ("beta", "drift", "volatility", "price")
    )

    root = np.sqrt(years)
    market = market_drift * years + market_volatility * root * _bell(rng, (steps, 1))
    change = beta * market + drift * years + volatility * root * _bell(rng, (steps, assets))
    listed = start[:, None] >= np.array([_us(asset.listed) for asset in _ASSETS])
    close = price * np.cumprod(np.where(listed, 1.0 + change, 1.0), axis=0)
    open_ = np.concatenate([price[None, :], close[:-1]])

    spread = (beta * market_volatility + volatility) * root
    up, down, crowd = rng.random((3, steps, assets))
    turnover = 2e8 * beta * years * (0.4 + 1.2 * crowd) * (1.0 + np.abs(change) / spread)
    bars = {
        "open": open_,
        "high": np.maximum(open_, close) * (1.0 + 0.5 * spread * up * up),
        "low": np.minimum(open_, close) * (1.0 - 0.5 * spread * down * down),
        "close": close,
        "volume": turnover / open_,
    }
    return {name: _rounded(values) for name, values in bars.items()}


def _bell(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Nearly normal numbers, mean 0 and variance 1: the sum of four uniform ones."""
    a, b, c, d = rng.random((4, *shape))
    return (a + b + c + d - 2.0) * np.sqrt(3.0)


_POWERS = np.array([float(f"1e{exponent}") for exponent in range(23)])
_MAGNITUDES = np.array([float(f"1e{exponent}") for exponent in range(-9, 23)])


def _rounded(values: np.ndarray) -> np.ndarray:
    """Positive numbers to `SIGNIFICANT_DIGITS`."""
    digits_before_point = np.searchsorted(_MAGNITUDES, values, side="right") - 9
    decimals = SIGNIFICANT_DIGITS - digits_before_point
    up, down = _POWERS[np.maximum(decimals, 0)], _POWERS[np.maximum(-decimals, 0)]
    return np.rint(values * up / down) * down / up


def _alive(start: np.ndarray) -> np.ndarray:
    """Where a bar exists: shape (steps, assets)."""
    alive = np.ones((len(start), len(_ASSETS)), bool)
    for i, asset in enumerate(_ASSETS):
        alive[:, i] = (start >= _us(asset.listed)) & (start < _us(asset.delisted))
    for symbol, begin, end in _OUTAGES:
        hit = [symbol in (None, asset.symbol) for asset in _ASSETS]
        alive &= ~np.outer((start >= _us(begin)) & (start < _us(end)), hit)
    return alive


def _panel(tf: str, start: np.ndarray, alive: np.ndarray, bars: dict[str, np.ndarray]) -> Panel:
    close_ts = timeframe(tf).period_bounds(start)[1] - CLOSE_STAMP_US
    return Panel(
        timeframe=timeframe(tf),
        assets=tuple(asset.symbol for asset in _ASSETS),
        offsets=np.concatenate(([0], np.cumsum(alive.sum(axis=0)))).astype(np.int64),
        ts=np.broadcast_to(close_ts, alive.T.shape)[alive.T],
        columns={name: values.T[alive.T] for name, values in bars.items()},
    )


def _joined(earlier: Panel, later: Panel) -> Panel:
    """The OHLCV rows of both panels, which have the same assets."""
    order = np.argsort(
        np.concatenate([earlier.segment_of_row, later.segment_of_row]), kind="stable"
    )
    return Panel(
        timeframe=earlier.timeframe,
        assets=earlier.assets,
        offsets=earlier.offsets + later.offsets,
        ts=np.concatenate([earlier.ts, later.ts])[order],
        columns={name: np.concatenate([earlier[name], later[name]])[order] for name in OHLCV},
    )
