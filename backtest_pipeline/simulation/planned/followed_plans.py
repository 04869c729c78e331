"""Plans as the arrays that an account follows: their triggers' wishes, their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.plans.vocabulary import Category
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.engine import (
    DAY_BOOK,
    ENTERS,
    LEAVES,
    LEAVES_AT_ONCE,
    LIMITS,
    NEVER,
    ORDER,
    REDUCES,
    SESSION,
    TRIGGER,
    Followed,
)
from backtest_pipeline.simulation.planned.plans_on_panel import PlansOnPanel, plan_in_force
from backtest_pipeline.simulation.planned.trigger_events import TriggerEvents
from backtest_pipeline.simulation.planned.wishes import Wishes, add_entries, add_exits
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.sizing import Sizing

_NO_LIMIT = 2**62
_KINDS = {
    Category.RISK_REDUCE: REDUCES,
    Category.RISK_OFF: LEAVES,
    Category.EMERGENCY_EXIT: LEAVES_AT_ONCE,
}


def followed_plans(
    on_panel: PlansOnPanel,
    events: Sequence[TriggerEvents],
    config: SimulationConfig,
    ts: np.ndarray,
    line_of: np.ndarray,
    members: np.ndarray,
    fractions: np.ndarray,
    sizings: Mapping[Sizing, int],
) -> Followed:
    """The plans as an account follows them.

    Args:
        on_panel: the plans.
        events: those of its triggers.
        config: sides that may be traded, and by how many bars every wish is late.
        ts: int64 `(n_lines,)`, stamps of the account's lines.
        line_of: int64 `(n_rows,)`, the line of each row.
        members: positions among the assets of the account's members.
        fractions: float64 `(n_sizings, n_rows)`, of the equity for an entry at each open.
        sizings: which of them is of each sizing.
    """
    panel, plans = on_panel.panel, on_panel.plans
    entries, exits = Wishes(on_panel, config.delay_bars), Wishes(on_panel, config.delay_bars)
    for number, (trigger, found) in enumerate(zip(on_panel.triggers, events, strict=True)):
        if trigger.category.enters:
            add_entries(entries, number, trigger, found, config.direction)
        else:
            add_exits(exits, number, trigger, found)
    limits, sessions = _limits(plans, panel.timeframe.name, sizings)
    member_of = np.empty(len(members), np.int64)
    member_of[members] = np.arange(len(members))
    orders = np.zeros(len(members), ORDER)
    orders["end"] = panel.offsets[1:][members]
    orders["day"] = -1
    book = np.zeros(1, DAY_BOOK)
    book["day"], book["equity"] = -1, config.initial_cash
    triggers, bits = _triggers(on_panel, events, member_of, config.delay_bars)
    wanted, wanted_bounds = entries.by_line(line_of, len(ts))
    left, left_bounds = exits.by_line(line_of, len(ts))
    return Followed(
        ts=ts,
        entries=wanted,
        entry_bounds=wanted_bounds,
        exits=left,
        exit_bounds=left_bounds,
        plan_of=np.maximum(plan_in_force(ts, plans), 0),
        triggers=triggers,
        bits=bits,
        limits=limits,
        sessions=sessions,
        fractions=fractions,
        orders=orders,
        book=book,
        minutes=np.zeros(len(wanted) + 1, np.int64),
        queue=np.zeros(len(members), np.int64),
    )


def _triggers(
    on_panel: PlansOnPanel, events: Sequence[TriggerEvents], member_of: np.ndarray, delay: int
) -> tuple[np.ndarray, np.ndarray]:
    """TRIGGER for each trigger, and the events of all, each of them `delay` bars late."""
    rows = np.zeros(len(on_panel.triggers), TRIGGER)
    late: list[np.ndarray] = [np.zeros(0, np.uint8)]
    n_bits = 0
    for row, trigger, found in zip(rows, on_panel.triggers, events, strict=True):
        first = on_panel.panel.rows_of(trigger.symbol).start
        row["member"] = member_of[on_panel.panel.assets.index(trigger.symbol)]
        row["bits_from"] = n_bits - first
        row["kind"] = _KINDS.get(trigger.category, ENTERS)
        row["stop_loss"] = np.nan if trigger.stop_loss_pct is None else trigger.stop_loss_pct / 100
        row["share"] = trigger.exit_fraction
        row["cooldown"] = _cooldown(trigger)
        late.append(np.concatenate((np.zeros(delay, np.uint8), found.bits))[: len(found.bits)])
        n_bits += len(found.bits)
    rows["rests_from"] = NEVER
    return rows, np.concatenate(late)


def _cooldown(trigger: Trigger) -> int:
    """The cooldown that a trigger's strategy brings."""
    if trigger.strategy is None:
        return 0
    strategy = strategy_of(trigger.strategy)
    return strategy.cooldown(strategy.parse(trigger.params))


def _limits(
    plans: Sequence[Plan], timeframe: str, sizings: Mapping[Sizing, int]
) -> tuple[np.ndarray, np.ndarray]:
    """LIMITS of each plan, and SESSION of all."""
    rows, sessions = np.zeros(len(plans), LIMITS), list[tuple[int, int, int]]()
    for row, plan in zip(rows, plans, strict=True):
        risk = plan.limits
        for name, percent in (
            ("position_risk", risk.max_position_risk_pct),
            ("symbol_exposure", risk.max_symbol_exposure_pct),
            ("portfolio_exposure", risk.max_portfolio_exposure_pct),
            ("daily_loss", risk.max_daily_loss_pct),
            ("risk_budget", risk.max_daily_risk_budget_pct),
        ):
            row[name] = np.inf if percent is None else percent / 100
        for name, count in (
            ("trades_per_day", plan.max_trades_per_day),
            ("trades_per_symbol", plan.max_triggers_per_symbol_per_day),
            ("trades_per_timeframe", plan.max_trades_per_timeframe_per_day.get(timeframe)),
        ):
            row[name] = _NO_LIMIT if count is None else count
        for name in ("min_hold", "min_flat", "cooldown"):
            row[name] = getattr(plan, f"{name}_bars")
        row["sizing"] = sizings[plan.sized()]
        row["first_session"] = len(sessions)
        sessions += [
            (*one.minutes, _NO_LIMIT if one.max_trades is None else one.max_trades)
            for one in plan.sessions
        ]
        row["end_session"] = len(sessions)
    return rows, np.array(sessions, SESSION)
