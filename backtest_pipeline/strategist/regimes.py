"""The state of the market at each bar, by rules: trend, volatility and drawdown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.market.features import rolling
from backtest_pipeline.market.features.derive import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.vocabulary import Regime

READS = ("high", "close", "ema_50", "ema_200", "atr_14")
_ORDER = tuple(Regime)
_CODE = {regime: code for code, regime in enumerate(_ORDER)}
UNKNOWN = -1


class RegimeSettings(BaseModel):
    """Thresholds of the regimes.

    Examples:
        >>> RegimeSettings(trend_band_pct=3.0).volatility_window
        180
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    trend_band_pct: float = Field(
        default=2.0, ge=0, le=50, description="distance of ema_50 from ema_200, percent, of a range"
    )
    volatility_window: int = Field(
        default=180, ge=20, le=2000, description="bars that volatility is compared with"
    )
    volatility_quantile: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="share of those bars that were calmer, above which volatility is high",
    )
    drawdown_window: int = Field(
        default=180, ge=2, le=2000, description="bars whose highest high drawdown is measured from"
    )
    drawdown_pct: float = Field(
        default=25.0,
        gt=0,
        lt=100,
        description="drawdown, percent, from which on a symbol counts as fallen",
    )
    confirm_bars: int = Field(
        default=3,
        ge=1,
        le=100,
        description="stamps in a row that must agree before the regime of a book changes",
    )


@dataclass(frozen=True)
class Regimes:
    """The state of a book at each of its stamps.

    Attributes:
        ts: int64 `(n_times,)`, every stamp that any symbol has, ascending, microseconds.
        code: int8 `(n_times,)`, position in `Regime` of the regime that more than half of the
            symbols with a known one are in, else that of `mixed`; UNKNOWN where none is known.
        fallen: bool `(n_times,)`, whether more than half of them have fallen.

    Both are the last that held for `confirm_bars` stamps in a row, UNKNOWN and False before.
    """

    ts: np.ndarray
    code: np.ndarray
    fallen: np.ndarray

    def at(self, instants_us: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`code` and `fallen` as known at each instant; UNKNOWN and False before the first stamp.

        Args:
            instants_us: int64 `(n,)`, microseconds since 1970 UTC.
        """
        last = np.searchsorted(self.ts, instants_us, side="right")
        return (
            np.append(np.int8(UNKNOWN), self.code)[last],
            np.append(False, self.fallen)[last],
        )


def regime_of(code: int) -> Regime | None:
    """The regime of a code; None for UNKNOWN."""
    return None if code == UNKNOWN else _ORDER[code]


def symbol_regimes(panel: Panel, settings: RegimeSettings) -> tuple[np.ndarray, np.ndarray]:
    """The regime of each symbol at each bar, by that bar and earlier ones.

    High volatility comes first: the ATR over the price is above the quantile of its own last bars.
    A bull market has ema_50 above ema_200 by more than the band and the close above ema_200, a bear
    market the opposite; inside of the band it is a range, and anything else is mixed.

    Args:
        panel: bars from each symbol's first one on, with the columns of READS or what they are
            computed from.
        settings: thresholds.

    Returns:
        `(code, fallen)`, int8 and bool `(n_rows,)`: position in `Regime`, UNKNOWN during warm-up;
        and whether the close is below the highest high of the window by `drawdown_pct` or more,
        False where the window is not full.
    """
    panel = with_indicators(panel, READS)
    close, fast, slow = panel["close"], panel["ema_50"], panel["ema_200"]
    volatility = rolling.ratio(panel["atr_14"], close)
    window, share = settings.volatility_window, settings.volatility_quantile
    usual = rolling.quantile(volatility, panel.offsets, window, share)
    spread = rolling.ratio(fast, slow) - 1
    band = settings.trend_band_pct / 100
    code = np.select(
        [
            ~(np.isfinite(spread) & np.isfinite(close) & np.isfinite(usual)),
            volatility > usual,
            (spread > band) & (close > slow),
            (spread < -band) & (close < slow),
            np.abs(spread) <= band,
        ],
        [
            UNKNOWN,
            *(_CODE[r] for r in (Regime.HIGH_VOL, Regime.BULL, Regime.BEAR, Regime.RANGE)),
        ],
        default=_CODE[Regime.MIXED],
    ).astype(np.int8)
    high = rolling.highest(panel["high"], panel.offsets, settings.drawdown_window)
    fallen = rolling.ratio(close, high) <= 1 - settings.drawdown_pct / 100
    return code, fallen


def book_regimes(panel: Panel, settings: RegimeSettings) -> Regimes:
    """The regime of all symbols together at each stamp; see `symbol_regimes` and `Regimes`.

    A symbol counts at the stamps that it has a bar at. The order of symbols plays no part.
    """
    code, fallen = symbol_regimes(panel, settings)
    ts, place = np.unique(panel.ts, return_inverse=True)
    known = code != UNKNOWN
    counts = np.zeros((len(ts), len(_ORDER)), np.int64)
    np.add.at(counts, (place[known], code[known]), 1)
    n_known = counts.sum(axis=1)
    most = counts.argmax(axis=1)
    has_majority = 2 * counts.max(axis=1, initial=0) > n_known
    together = np.where(has_majority, most, _CODE[Regime.MIXED])
    n_fallen = np.bincount(place[known & fallen], minlength=len(ts))
    code = np.where(n_known > 0, together, UNKNOWN)
    return _confirmed(ts, code, 2 * n_fallen > n_known, settings.confirm_bars)


def _confirmed(ts: np.ndarray, code: np.ndarray, fallen: np.ndarray, bars: int) -> Regimes:
    """What held for some stamps in a row, at each stamp the last of it."""
    state = 2 * code + fallen
    run_start = np.flatnonzero(np.diff(state, prepend=state[:1] - 1))
    run = np.repeat(run_start, np.diff(np.append(run_start, len(state))))
    places = np.arange(len(state))
    held = np.maximum.accumulate(np.where(places - run >= bars - 1, places, -1))
    code, fallen = np.append(code, UNKNOWN)[held], np.append(fallen, False)[held]
    return Regimes(ts, code.astype(np.int8), fallen)
