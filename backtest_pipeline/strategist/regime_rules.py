"""The strategist `rules`: the regime of the market decides which triggers are live."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.limits import RiskLimits
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.plans.vocabulary import Category, Regime, Stance
from backtest_pipeline.strategist.known import Occasion, book_of
from backtest_pipeline.strategist.proposal import Proposal, plan_of, require_followable
from backtest_pipeline.strategist.regimes import (
    READS,
    RegimeSettings,
    book_regimes,
    regime_of,
)
from backtest_pipeline.strategist.strategist import StateStrategist
from backtest_pipeline.trading.direction import Direction

RULES_VERSION = 1
"""Raise it when the same bars give other plans."""


class RulesSettings(BaseModel):
    """What the strategist `rules` can be told.

    Examples:
        >>> RulesSettings(direction="both").stop_loss_pct
        8.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    direction: Direction = Field(default=Direction.LONG, description="sides that may be entered")
    stop_loss_pct: float = Field(
        default=8.0, ge=0.5, le=50, description="stop of every entry, percent from its price"
    )
    risk_per_trade_pct: float = Field(
        default=2.0, ge=0.01, le=10, description="loss of an entry at its stop, percent of equity"
    )
    max_daily_loss_pct: float = Field(
        default=4.0, gt=0, le=100, description="loss of a UTC day after which nothing is entered"
    )
    max_trades_per_day: int = Field(
        default=10, ge=1, le=10_000, description="entries of the account on a UTC day"
    )
    cooldown_bars: int = Field(
        default=3, ge=0, le=1_000, description="bars that a trigger rests after its position closed"
    )
    regimes: RegimeSettings = RegimeSettings()


_DEFAULTS = RulesSettings()


class _Rule(NamedTuple):
    """A trigger of every symbol: an entry with its exit, or an exit alone."""

    category: Category
    side: Direction
    exit: str
    entry: str | None = None
    exit_fraction: float = 1.0


_LONG, _SHORT = Direction.LONG, Direction.SHORT
_TREND = (
    _Rule(
        Category.TREND_CONTINUATION,
        _LONG,
        entry="close > ema_50 and crosses_above(rsi_14, 50)",
        exit="close < ema_50",
    ),
    _Rule(
        Category.TREND_CONTINUATION,
        _SHORT,
        entry="close < ema_50 and crosses_below(rsi_14, 50)",
        exit="close > ema_50",
    ),
)
_BREAKOUT = (
    _Rule(
        Category.VOLATILITY_BREAKOUT,
        _LONG,
        entry="close > highest(high, 20, prior=True)",
        exit="close < lowest(low, 10, prior=True)",
    ),
    _Rule(
        Category.VOLATILITY_BREAKOUT,
        _SHORT,
        entry="close < lowest(low, 20, prior=True)",
        exit="close > highest(high, 10, prior=True)",
    ),
)
_RARE_BREAKOUT = (
    _Rule(
        Category.VOLATILITY_BREAKOUT,
        _LONG,
        entry="close > highest(high, 55, prior=True)",
        exit="close < lowest(low, 20, prior=True)",
    ),
    _Rule(
        Category.VOLATILITY_BREAKOUT,
        _SHORT,
        entry="close < lowest(low, 55, prior=True)",
        exit="close > highest(high, 20, prior=True)",
    ),
)
_REVERSION = (
    _Rule(
        Category.MEAN_REVERSION,
        _LONG,
        entry="crosses_above(rsi_14, 30)",
        exit="rsi_14 > 55",
    ),
    _Rule(
        Category.MEAN_REVERSION,
        _SHORT,
        entry="crosses_below(rsi_14, 70)",
        exit="rsi_14 < 45",
    ),
)
_REVERSAL = (
    _Rule(
        Category.REVERSAL,
        _LONG,
        entry="crosses_above(close, ema_21) and lowest(rsi_14, 10) < 35",
        exit="close < ema_21",
    ),
    _Rule(
        Category.REVERSAL,
        _SHORT,
        entry="crosses_below(close, ema_21) and highest(rsi_14, 10) > 65",
        exit="close > ema_21",
    ),
)
_HALVE = (
    _Rule(
        Category.RISK_REDUCE,
        Direction.BOTH,
        exit="crosses_above(atr_14 / close, 1.5 * mean(atr_14 / close, 50))",
        exit_fraction=0.5,
    ),
)
_RISK_OFF = (
    _Rule(Category.RISK_OFF, _LONG, exit="close < lowest(low, 20, prior=True)"),
    _Rule(Category.RISK_OFF, _SHORT, exit="close > highest(high, 20, prior=True)"),
)
_EMERGENCY = (
    _Rule(Category.EMERGENCY_EXIT, _LONG, exit="close < 0.85 * shift(close, 1)"),
    _Rule(Category.EMERGENCY_EXIT, _SHORT, exit="close > 1.15 * shift(close, 1)"),
)
# By falling priority: what closes comes first.
RULES_BY_REGIME: dict[Regime, tuple[_Rule, ...]] = {
    Regime.BULL: (*_EMERGENCY, *_TREND, *_BREAKOUT),
    Regime.BEAR: (*_EMERGENCY, *_RISK_OFF, *_TREND, *_REVERSAL),
    Regime.RANGE: (*_EMERGENCY, *_REVERSION, *_REVERSAL),
    Regime.HIGH_VOL: (*_EMERGENCY, *_HALVE, *_RARE_BREAKOUT, *_REVERSION),
    Regime.MIXED: (*_EMERGENCY, *_TREND, *_REVERSION),
}


class RegimeRules(StateStrategist):
    """Plans by the regime of the book's longest timeframe, with triggers on all its timeframes.

    docs/strategist.md has the regimes, and the triggers and limits of each. Nothing but the last
    bars decides: neither the account nor the previous plan.

    Examples:
        >>> RegimeRules(RulesSettings(stop_loss_pct=5.0)).name
        'rules'
    """

    name = "rules"
    reads = READS

    def __init__(self, settings: RulesSettings = _DEFAULTS) -> None:
        self.settings = settings
        self._by_state: dict[tuple[object, ...], dict[str, Any]] = {}

    def states(self, panels: Mapping[str, Panel], instants_us: np.ndarray) -> np.ndarray:
        """The regime, and whether the book has fallen; see `StateStrategist.states`."""
        _, timeframes = book_of(panels)
        regimes = book_regimes(panels[timeframes[-1]], self.settings.regimes)
        code, fallen = regimes.at(instants_us)
        return 2 * code.astype(np.int64) + fallen

    def plan_in(self, state: int, occasion: Occasion) -> Proposal:
        """The plan in a regime; see `StateStrategist.plan_in`."""
        key = state, occasion.symbols, occasion.timeframes
        if key not in self._by_state:
            self._by_state[key] = _terms(self.settings, state, *key[1:])
        plan = plan_of(occasion, self._by_state[key])
        require_followable(plan, occasion)
        return Proposal(plan)


def _terms(
    settings: RulesSettings, state: int, symbols: tuple[str, ...], timeframes: tuple[str, ...]
) -> dict[str, Any]:
    """The fields of a plan, without its times."""
    code, fallen = divmod(state, 2)
    regime = regime_of(code)
    if regime is None:
        return {"regime": Regime.MIXED, "stance": Stance.WAIT}
    is_calm = regime in (Regime.BULL, Regime.RANGE) or (
        regime is Regime.BEAR and settings.direction is not Direction.LONG
    )
    share = 1.0 if is_calm and not fallen else 0.5
    risk = share * settings.risk_per_trade_pct
    fraction = min(risk / settings.stop_loss_pct, 1.0)
    sides = (_LONG, _SHORT) if settings.direction is Direction.BOTH else (settings.direction,)
    return {
        "regime": regime,
        "stance": Stance.ACTIVE if share == 1.0 else Stance.DEFENSIVE,
        "triggers": tuple(
            _trigger(rule, symbol, tf, settings.stop_loss_pct)
            for rule in RULES_BY_REGIME[regime]
            if rule.side in (*sides, Direction.BOTH)
            for tf in timeframes
            for symbol in symbols
        ),
        "limits": RiskLimits(
            max_position_risk_pct=_rounded(1.5 * risk),
            max_symbol_exposure_pct=_rounded(150.0 * fraction),
            max_portfolio_exposure_pct=_rounded(max(100.0 * share, 150.0 * fraction)),
            max_daily_loss_pct=_rounded(share * settings.max_daily_loss_pct),
            max_daily_risk_budget_pct=_rounded(min(5 * risk, 100.0)),
        ),
        "sizing": {"mode": "fixed", "fraction": _rounded(fraction)},
        "max_trades_per_day": settings.max_trades_per_day,
        "max_triggers_per_symbol_per_day": min(2, settings.max_trades_per_day),
        "min_flat_bars": 1,
        "cooldown_bars": settings.cooldown_bars,
        "allowed_directions": tuple(sides),
    }


def _rounded(value: float) -> float:
    return round(value, 6)


@lru_cache(maxsize=65_536)
def _trigger(rule: _Rule, symbol: str, tf: str, stop_loss_pct: float) -> Trigger:
    return Trigger(
        symbol=symbol,
        timeframe=tf,
        category=rule.category,
        direction=rule.side,
        entry=rule.entry,
        exit=rule.exit,
        stop_loss_pct=stop_loss_pct if rule.category.enters else None,
        exit_fraction=rule.exit_fraction,
    )
