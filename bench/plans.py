"""Case `plans`: a book of many symbols that follows plans, with all limits and without."""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest_pipeline.market.features.build import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.planned.planned_book import simulate_planned
from backtest_pipeline.strategist.history import plan_history
from backtest_pipeline.strategist.regime_rules import RegimeRules
from bench.clock import Clock
from bench.harness import Report, Table

_FIRST_DAY = 18_000
_REPEATS = 3
_ENTERING = (
    ("trend_continuation", "long", "crosses_above(ema_9, ema_21)", "crosses_below(ema_9, ema_21)"),
    ("trend_continuation", "short", "crosses_below(ema_9, ema_21)", "crosses_above(ema_9, ema_21)"),
    ("mean_reversion", "long", "rsi_14 < 30", "rsi_14 > 50"),
    ("mean_reversion", "short", "rsi_14 > 70", "rsi_14 < 50"),
    ("volatility_breakout", "long", "close > highest(high, 20, prior=True)", "close < ema_21"),
    ("volatility_breakout", "short", "close < lowest(low, 20, prior=True)", "close > ema_21"),
    ("reversal", "long", "crosses_above(rsi_14, 30)", "rsi_14 > 60"),
    ("reversal", "short", "crosses_below(rsi_14, 70)", "rsi_14 < 40"),
    ("other", "long", "close > ema_50 and crosses_above(close, ema_21)", "close < ema_50"),
)
_CLOSING = (
    ("risk_reduce", "both", "atr_14 / close > 0.06", 0.5),
    ("risk_off", "long", "close < ema_200", 1.0),
    ("emergency_exit", "both", "close < lowest(low, 60, prior=True)", 1.0),
)
_LIMITS: dict[str, Any] = {
    "limits": {
        "max_position_risk_pct": 1.0,
        "max_symbol_exposure_pct": 10.0,
        "max_portfolio_exposure_pct": 90.0,
        "max_daily_loss_pct": 2.0,
        "max_daily_risk_budget_pct": 3.0,
    },
    "max_trades_per_day": 5,
    "max_triggers_per_symbol_per_day": 1,
    "max_trades_per_timeframe_per_day": {"1D": 5},
    "sessions": [{"start": "00:00", "end": "24:00", "max_trades": 5}],
    "min_hold_bars": 2,
    "min_flat_bars": 1,
    "cooldown_bars": 3,
    "allowed_directions": ["long", "short"],
}


def run(*, quick: bool) -> Report:
    """Measure it."""
    n_assets, n_days, n_plans = (6, 200, 4) if quick else (149, 5 * 365, 20)
    panel = _market(n_assets, n_days)
    clock = Clock()
    rows: list[list[str | float | int]] = []
    for name, limits in (("none", {}), ("all", _LIMITS)):
        plans = _plans(panel, n_plans, limits)
        simulate_planned(panel, plans, SimulationConfig())  # compiles
        taken, result = [], None
        for _ in range(_REPEATS):
            begin = clock.now()
            result = simulate_planned(panel, plans, SimulationConfig())
            taken.append(clock.now() - begin)
        assert result is not None
        best = min(taken, key=lambda one: one.wall)
        counts = (int(result.triggered.sum()), int(result.entered.sum()), len(result.blocks))
        rows.append([name, *counts, best.wall, best.cpu])
    columns = ["limits", "triggered", "entered", "blocked (exits too)", "wall s", "CPU s"]
    return Report(
        "Plans",
        f"A book of {n_assets} random daily markets of {n_days} days that follows {n_plans} plans, "
        f"with {len(_ENTERING) + len(_CLOSING)} triggers of each symbol; warm, the best of "
        f"{_REPEATS}. The goal is less than 5 s with all limits, and at most 3 times the time "
        "without.",
        [
            Table("Planned book", columns, rows),
            Table("History of plans by rules", _HISTORY, _histories(panel, clock)),
        ],
    )


_HISTORY = ["books", "plans", "suppressed replans", "wall s", "CPU s"]


def _histories(panel: Panel, clock: Clock) -> list[list[str | float | int]]:
    """The plans that the strategist `rules` would have made, in one book and in many."""
    books = {
        "one of all symbols": [panel],
        "one of each symbol": [panel.select([symbol]) for symbol in panel.assets],
    }
    plan_history(RegimeRules(), {"1D": panel})  # compiles
    rows: list[list[str | float | int]] = []
    for name, panels in books.items():
        begin = clock.now()
        made = [plan_history(RegimeRules(), {"1D": one}).records for one in panels]
        taken = clock.now() - begin
        counts = sum(map(len, made)), sum(record.suppressed for one in made for record in one)
        rows.append([name, *counts, taken.wall, taken.cpu])
    return rows


def _market(n_assets: int, n_days: int) -> Panel:
    """Random walks with their features."""
    rng = np.random.default_rng(11)
    rows = n_assets * n_days
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.03, (n_assets, n_days)), axis=1)).ravel()
    open_ = close * np.exp(rng.normal(0, 0.01, rows))
    stamps = (_FIRST_DAY + 1 + np.arange(n_days)) * DAY_US - CLOSE_STAMP_US
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * 1.01,
        "low": np.minimum(open_, close) / 1.01,
        "close": close,
        "volume": rng.uniform(1, 2, rows),
    }
    offsets = np.arange(n_assets + 1) * n_days
    names = tuple(f"A{i:03}" for i in range(n_assets))
    return build_features(
        Panel(timeframe("1D"), names, offsets, np.tile(stamps, n_assets), columns)
    )


def _plans(panel: Panel, n_plans: int, limits: dict[str, Any]) -> list[Plan]:
    """The same triggers in plans one after the other, as replans keep them."""
    triggers = [
        trigger
        for symbol in panel.assets
        for trigger in (
            *(
                _trigger(symbol, category, side, entry=entry, exit=exit_, stop_loss_pct=6.0)
                for category, side, entry, exit_ in _ENTERING
            ),
            *(
                _trigger(symbol, category, side, exit=exit_, exit_fraction=share)
                for category, side, exit_, share in _CLOSING
            ),
        )
    ]
    stamps = np.unique(panel.ts)
    starts = stamps[np.linspace(0, len(stamps) - 1, n_plans + 1).astype(int)[:-1]]
    return [
        plan_from(
            {
                "generated_at": _text(start),
                "effective_ts": _text(start),
                "valid_until": _text(int(stamps[-1]) + DAY_US),
                "regime": "mixed",
                "stance": "active",
                "triggers": triggers,
                "sizing": {"mode": "fixed", "fraction": 0.05},
                **limits,
            }
        )
        for start in starts.tolist()
    ]


def _trigger(symbol: str, category: str, side: str, **more: Any) -> dict[str, Any]:
    return {"symbol": symbol, "timeframe": "1D", "category": category, "direction": side, **more}


def _text(us: int) -> str:
    return f"{np.datetime64(us, 'us')}Z"
