"""Random plans on random markets, and the rules that they are made of in plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline_tests.simulation.markets import random_panel
from backtest_pipeline_tests.simulation.planned.reference_decisions import ENTERS, Rule
from backtest_pipeline_tests.simulation.reference_trade import Bar

UNDEFINED = "1 / (volume - 1) > 0.5"
MISSING = "rsi_14 > 50"
FAILED = "rank_pct(close) > 0.5"  # the panel has no ranks
RULES = [
    "close > open",
    "close < open",
    "close > shift(close, 2)",
    "close < shift(open, 1)",
    "close > 2 * open",
    UNDEFINED,
    MISSING,
    FAILED,
]
SHARES = [0.3, 0.3, 0.2, 0.1, 0.02, 0.03, 0.03, 0.02]


def market(rng: np.random.Generator, lengths: list[int], volatility: float, name: str) -> Panel:
    """Random walks with holes; volume is sometimes 1, and `rsi_14` sometimes missing."""
    panel = random_panel(rng, lengths, volatility, name, holes=0.1)
    rsi = np.where(rng.random(len(panel)) < 0.1, np.nan, rng.uniform(0, 100, len(panel)))
    volume = rng.integers(1, 4, len(panel)).astype(np.float64)
    return panel.with_columns({"rsi_14": rsi, "volume": volume})


def plain_rules(panel: Panel, bars: list[list[Bar]]) -> dict[str, Rule]:
    """What each rule is at a bar of an asset."""
    rsi = [panel["rsi_14"][panel.rows_of(name)].tolist() for name in panel.assets]
    volume = [panel["volume"][panel.rows_of(name)].tolist() for name in panel.assets]

    def by_rsi(a: int, t: int) -> bool | str:
        if t < 14:
            return "" if math.isnan(rsi[a][t]) else rsi[a][t] > 50
        return "FEATURE_MISSING" if math.isnan(rsi[a][t]) else rsi[a][t] > 50

    def by_volume(a: int, t: int) -> bool | str:
        return "RULE_UNDEFINED" if volume[a][t] == 1 else 1 / (volume[a][t] - 1) > 0.5

    return {
        "close > open": lambda a, t: bars[a][t].close > bars[a][t].open,
        "close < open": lambda a, t: bars[a][t].close < bars[a][t].open,
        "close > shift(close, 2)": lambda a, t: (
            "" if t < 2 else bars[a][t].close > bars[a][t - 2].close
        ),
        "close < shift(open, 1)": lambda a, t: (
            "" if t < 1 else bars[a][t].close < bars[a][t - 1].open
        ),
        "close > 2 * open": lambda a, t: bars[a][t].close > 2 * bars[a][t].open,
        UNDEFINED: by_volume,
        MISSING: by_rsi,
        FAILED: lambda a, t: "RULE_FAILED",
    }


def random_plans(rng: np.random.Generator, panel: Panel, n_plans: int) -> list[Plan]:
    """Plans that hold some of the same triggers, under limits that are met now and then."""
    drawn = [_trigger(rng, panel) for _ in range(12)]
    pool = [one for n, one in enumerate(drawn) if one not in drawn[:n]]
    stamps: list[int] = np.unique(panel.ts).tolist()
    starts = np.sort(rng.choice(len(stamps), min(n_plans, len(stamps)), replace=False))
    plans = []
    for start in starts.tolist():
        end = min(start + int(rng.integers(1, 60)), len(stamps) - 1)
        effective = stamp_text(stamps[start])
        kept = rng.permutation(len(pool))[: int(rng.integers(4, 13))]
        plans.append(
            plan_from(
                {
                    "generated_at": effective,
                    "effective_ts": effective,
                    "valid_until": stamp_text(stamps[end] + 1000),
                    "regime": "mixed",
                    "stance": "wait" if rng.random() < 0.05 else "active",
                    "triggers": [pool[i] for i in kept],
                    "sizing": {"mode": "fixed", "fraction": float(rng.choice([1.0, 0.5, 0.3]))},
                    **_limits(rng, panel),
                }
            )
        )
    return plans


def stamp_text(us: int) -> str:
    """Microseconds since 1970 UTC as plans have them."""
    return f"{np.datetime64(us, 'us')}Z"


def _trigger(rng: np.random.Generator, panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "symbol": str(rng.choice(np.array(panel.assets))),
        "timeframe": panel.timeframe.name,
        "direction": str(rng.choice(["long", "short"])),
    }
    if rng.random() < 0.75:
        found["category"] = str(rng.choice(list(ENTERS)))
        found["entry"] = str(rng.choice(RULES, p=SHARES))
        found["stop_loss_pct"] = round(float(rng.uniform(1, 10)), 3)
        if rng.random() < 0.6:
            found["exit"] = str(rng.choice(RULES, p=SHARES))
        return found
    found["category"] = str(rng.choice(["risk_reduce", "risk_off", "emergency_exit"]))
    found["direction"] = str(rng.choice(["long", "short", "both"]))
    found["exit"] = str(rng.choice(RULES, p=SHARES))
    if found["category"] == "risk_reduce":
        found["exit_fraction"] = float(rng.choice([0.25, 0.5, 1.0]))
    return found


def _limits(rng: np.random.Generator, panel: Panel) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        "max_trades_per_day": int(rng.integers(2, 5)),
        "max_triggers_per_symbol_per_day": int(rng.integers(1, 3)),
        "max_trades_per_timeframe_per_day": {panel.timeframe.name: int(rng.integers(1, 3))},
        "min_hold_bars": int(rng.integers(2, 5)),
        "min_flat_bars": int(rng.integers(1, 4)),
        "cooldown_bars": int(rng.integers(1, 5)),
        "allowed_symbols": list(panel.assets[:-1]),
        "allowed_directions": [str(rng.choice(["long", "short"]))],
        "allowed_categories": [*ENTERS[:3], "risk_off"],
        "sessions": [
            {"start": "00:00", "end": "12:00", "max_trades": 1},
            {"start": "16:00", "end": "24:00", "max_trades": 2},
        ],
    }
    risk = {
        "max_position_risk_pct": 4.0,
        "max_symbol_exposure_pct": 60.0,
        "max_portfolio_exposure_pct": 120.0,
        "max_daily_loss_pct": 1.0,
        "max_daily_risk_budget_pct": 5.0,
    }
    found = {name: value for name, value in drawn.items() if rng.random() < 0.2}
    found["limits"] = {name: value for name, value in risk.items() if rng.random() < 0.25}
    return found
