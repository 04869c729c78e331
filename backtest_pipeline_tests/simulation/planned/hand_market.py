"""Sixty bars of four hours of two symbols, made by hand, and a plan that follows their signals.

Day d has the bars 6d to 6d + 5. A is at 100 and falls to 94 within bar 14; B stays at 100, and has
no bars 36 and 37. Nothing costs anything. The volume of a bar says what is asked for at its close.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, MICROSECONDS, timeframe
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.planned.planned_book import PlannedResult, simulate_planned
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.simulation.planned.random_plans import stamp_text

LONG, EXIT, SHORT, DIP, LONG_AND_DIP, LONG_AND_SHORT, REDUCE, OFF, PANIC = range(1, 10)
ASKED = {
    "A": {
        1: LONG,  # enters at the open of bar 2, as each signal acts at the next open
        3: EXIT,
        4: LONG,
        7: SHORT,  # reverses
        9: EXIT,
        12: LONG,
        15: REDUCE,
        16: EXIT,
        17: LONG,  # on a day on which A lost 6 %
        19: PANIC,
        22: LONG_AND_SHORT,
        24: LONG_AND_DIP,
        26: OFF,
        27: DIP,
        30: EXIT,
    },
    "B": {1: LONG, 5: EXIT, 12: LONG, 17: EXIT, 24: LONG, 29: EXIT, 34: LONG, 35: PANIC},
}
MISSING = {"A": (), "B": (36, 37)}
N_BARS = 60
FIRST = 19_723 * DAY_US  # 2024-01-01
STEP = 4 * MICROSECONDS["H"]
FREE = SimulationConfig(costs=CostModel(0.0, 0.0, 0.0))


def _at(*codes: int) -> str:
    return " or ".join(f"between(volume, {code}, {code})" for code in codes)


TRIGGERS: dict[str, dict[str, Any]] = {
    "trend": {
        "category": "trend_continuation",
        "direction": "long",
        "entry": _at(LONG, LONG_AND_DIP, LONG_AND_SHORT),
        "exit": _at(EXIT),
        "stop_loss_pct": 10.0,
    },
    "dip": {
        "category": "mean_reversion",
        "direction": "long",
        "entry": _at(DIP, LONG_AND_DIP),
        "exit": _at(EXIT),
        "stop_loss_pct": 4.0,
    },
    "fade": {
        "category": "reversal",
        "direction": "short",
        "entry": _at(SHORT, LONG_AND_SHORT),
        "exit": _at(EXIT),
        "stop_loss_pct": 10.0,
    },
    "reduce": {
        "category": "risk_reduce",
        "direction": "both",
        "exit": _at(REDUCE),
        "exit_fraction": 0.5,
    },
    "off": {"category": "risk_off", "direction": "both", "exit": _at(OFF)},
    "panic": {"category": "emergency_exit", "direction": "both", "exit": _at(PANIC)},
}
"""By falling priority, those of A before those of B."""


def hand_made() -> Panel:
    """The bars."""
    bars = {name: [t for t in range(N_BARS) if t not in MISSING[name]] for name in ASKED}
    at = np.concatenate(list(bars.values()))
    is_a = np.arange(len(at)) < len(bars["A"])
    volume = [float(ASKED[name].get(t, 0)) for name, of_name in bars.items() for t in of_name]
    open_ = np.where(is_a & (at > 14), 94.0, 100.0)
    close = np.where(is_a & (at >= 14), 94.0, 100.0)
    columns = {
        "open": open_,
        "high": np.maximum(open_, close),
        "low": np.minimum(open_, close),
        "close": close,
        "volume": np.array(volume),
        "rsi_14": np.where(at == 20, np.nan, 40.0),
    }
    offsets = np.array([0, len(bars["A"]), len(at)])
    ts = FIRST + (at + 1) * STEP - CLOSE_STAMP_US
    return Panel(timeframe("4H"), ("A", "B"), offsets, ts, columns)


def stamp(bar: int) -> str:
    """The close stamp of a bar."""
    return stamp_text(FIRST + (bar + 1) * STEP - CLOSE_STAMP_US)


def hand_plan(change: dict[str, Any], triggers: dict[str, dict[str, Any]] | None = None) -> Plan:
    """The plan, in force from the first bar on, with some of its fields changed.

    An entry at a bar that asks for less than DIP wants half of the equity, another 30 %.
    """
    given = [
        {"symbol": symbol, "timeframe": "4H", **trigger}
        for symbol in ASKED
        for trigger in (TRIGGERS if triggers is None else triggers).values()
    ]
    return plan_from(
        {
            "generated_at": stamp(0),
            "effective_ts": stamp(0),
            "valid_until": stamp(N_BARS),
            "regime": "range",
            "stance": "active",
            "triggers": given,
            "sizing": {"mode": "expression", "fraction": f"0.5 if volume < {DIP} else 0.3"},
            **change,
        }
    )


Row = tuple[int, str, str, str, float, str, str]


def blocked(
    change: dict[str, Any],
    config: SimulationConfig = FREE,
    triggers: dict[str, dict[str, Any]] | None = None,
) -> list[Row]:
    """What a plan blocks: signal's bar, symbol, trigger, side, units, reason and detail.

    The bar that a row is stamped with is the symbol's next one.
    """
    return rows_of(simulate_planned(hand_made(), [hand_plan(change, triggers)], config), triggers)


def rows_of(result: PlannedResult, triggers: dict[str, dict[str, Any]] | None = None) -> list[Row]:
    names = {
        Trigger(symbol=symbol, timeframe="4H", **trigger).id: name
        for symbol in ASKED
        for name, trigger in (TRIGGERS if triggers is None else triggers).items()
    }
    columns = {name: values.tolist() for name, values in result.blocks.columns().items()}
    bars = [(ts + CLOSE_STAMP_US - FIRST) // STEP - 1 for ts in columns["ts"]]
    return [
        (
            max(t for t in range(bar) if t not in MISSING[symbol]),
            symbol,
            names[trigger],
            side,
            round(qty, 4),
            reason,
            detail,
        )
        for bar, symbol, trigger, side, qty, reason, detail in zip(
            bars,
            *(columns[n] for n in ("symbol", "trigger_id", "side", "qty", "reason", "detail")),
            strict=True,
        )
    ]
