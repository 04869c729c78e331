"""A book that follows plans: triggers decide, limits block, cash is shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.plan_sequence import in_order
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.simulation.book import (
    BookResult,
    book_result,
    by_name,
    held_equally,
    instants_of,
)
from backtest_pipeline.simulation.config import PositionRules, SimulationConfig
from backtest_pipeline.simulation.engine import (
    BOTH_SIDES,
    NOTHING_PENDING,
    REVERSAL,
    SIGNAL,
    Followed,
    Simulated,
)
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.inputs import AccountInputs, account_inputs, require_events
from backtest_pipeline.simulation.planned.followed_plans import followed_plans
from backtest_pipeline.simulation.planned.planned_blocks import PlannedBlocks
from backtest_pipeline.simulation.planned.plans_on_panel import PlansOnPanel
from backtest_pipeline.simulation.planned.trigger_events import trigger_events
from backtest_pipeline.simulation.rules import RulesOfRuns
from backtest_pipeline.trading.sizing import Sizing
from backtest_pipeline.trading.stops import StopRules

PLANS_VERSION = 1
"""Raise it when the same plans on the same bars give other trades, equity or blocks."""
NO_TRIGGER = -1


@dataclass(frozen=True)
class PlannedResult:
    """The result of a book that follows plans.

    Attributes:
        book: the book, of one run.
        plans: the plans that were given, by when they take effect.
        triggers: those of them that trade on the panel, each once.
        trade_trigger: int64 `(n_trades,)`, which of the triggers entered each trade of the book.
        exit_trigger: int64 `(n_trades,)`, which of them asked for its exit; NO_TRIGGER for a stop,
            a liquidation, or a trade that is open.
        is_part: bool `(n_trades,)`, whether a part of the position went on after it.
        blocks: entries and exits that were blocked.
        triggered, entered: int64 `(n_triggers,)`, entries that each asked for and that were due in
            these bars, and those that were made; all others are in `blocks`.
        exits_triggered, exits: exits that triggers asked for, and those that were ordered.
        pending_trigger: int64 `(n_assets,)`, which trigger has an entry or exit due at the next
            open; NO_TRIGGER where none has.
    """

    book: BookResult
    plans: tuple[Plan, ...]
    triggers: tuple[Trigger, ...]
    trade_trigger: np.ndarray
    exit_trigger: np.ndarray
    is_part: np.ndarray
    blocks: PlannedBlocks
    triggered: np.ndarray
    entered: np.ndarray
    exits_triggered: int
    exits: int
    pending_trigger: np.ndarray


def simulate_planned(
    panel: Panel,
    plans: Sequence[Plan],
    config: SimulationConfig,
    *,
    funding: FundingRates | None = None,
    finer: Panel | None = None,
    benchmark: np.ndarray | None = None,
) -> PlannedResult:
    """Trade the triggers of plans on all assets of the panel out of one account.

    Args:
        panel: bars from each asset's first one on, or with the features that triggers read.
            Triggers of other symbols or timeframes are left out.
        plans: in any order; each is followed from its `effective_ts` until the next one's.
        config: costs and the account; sizing, stops and cooldown are said by the plans.
        funding, finer, benchmark: as `book.simulate_book` takes them.

    Raises:
        PlanRefused: for two plans that take effect at one instant.
        InvalidInput: for bars as `batch.simulate_batch`, or a configuration with what plans say.
    """
    _require_unsaid(config)
    ordered = in_order(plans)
    events = np.zeros((1, len(panel)), np.uint8)
    require_events(panel, events)
    members = by_name(panel)
    ts, table = instants_of(panel, members)
    sizings = {sizing: n for n, sizing in enumerate(dict.fromkeys(p.sized() for p in ordered))}
    inputs = _inputs(panel, events, config, list(sizings), funding, finer)
    on_panel = PlansOnPanel.of(panel, ordered)
    found = trigger_events(panel, on_panel.triggers)
    followed = followed_plans(
        on_panel,
        found,
        config,
        ts,
        np.searchsorted(ts, panel.ts),
        members,
        inputs.fractions,
        sizings,
    )
    simulated = _entered_by_row(inputs).simulate_together(table, members, followed)
    failures = [one.failure for one in found]
    blocks = PlannedBlocks.of(panel, on_panel.triggers, failures, simulated.refusals)
    if benchmark is None:
        benchmark = held_equally(panel, table, members, config)
    book = book_result(
        panel,
        (ts, table),
        simulated,
        config,
        benchmark,
        pending=np.where(
            simulated.next_side == simulated.side, np.int8(NOTHING_PENDING), simulated.next_side
        ),
        conflicts=np.array([np.count_nonzero(blocks.cause == BOTH_SIDES)]),
    )
    return _result(book, on_panel, blocks, simulated, followed, members)


def _require_unsaid(config: SimulationConfig) -> None:
    """Raises InvalidInput where the configuration says what plans say."""
    given = {
        "sizing": config.sizing is not None,
        "stops": config.stops.any,
        "cooldown_bars": config.cooldown_bars > 0,
    }
    said = [name for name, is_given in given.items() if is_given]
    if said:
        raise InvalidInput(f"{', '.join(said)}: the plans say it; leave it out here")


def _inputs(
    panel: Panel,
    events: np.ndarray,
    config: SimulationConfig,
    sizings: Sequence[Sizing],
    funding: FundingRates | None,
    finer: Panel | None,
) -> AccountInputs:
    """What the account trades over, with the fractions of each sizing."""
    rules = [PositionRules(StopRules(), 0, sizing) for sizing in sizings]
    rules = rules or [config.rules]  # no plan, and so no entry
    of_runs = RulesOfRuns(tuple(rules), np.zeros((1, 1), np.int64))
    return account_inputs(panel, events, config, len(panel.assets), funding, finer, of_runs)


def _entered_by_row(inputs: AccountInputs) -> AccountInputs:
    """The same, with rules that take each entry's fraction and stop from the row of its bar."""
    rules = inputs.rules[:1].copy()
    rules["stop_loss_by"], rules["by_row"], rules["sizing"] = 0, True, 0
    unknown = np.full((1, inputs.fractions.shape[1]), np.nan)
    return replace(inputs, rules=rules, fractions=unknown, distances=unknown.copy())


def _result(
    book: BookResult,
    on_panel: PlansOnPanel,
    blocks: PlannedBlocks,
    simulated: Simulated,
    followed: Followed,
    members: np.ndarray,
) -> PlannedResult:
    records = simulated.trades
    records = records[np.lexsort((records["entry_row"], records["column"]))]  # as the trade log
    by_signal = np.isin(records["reason"], (SIGNAL, REVERSAL))
    due = np.where(followed.orders["waiting"], followed.orders["trigger"], NO_TRIGGER)
    due = np.where(simulated.ruined[0], NO_TRIGGER, due)
    pending_trigger = np.full(len(members), NO_TRIGGER)
    pending_trigger[members] = due
    day = followed.book[0]
    return PlannedResult(
        book=book,
        plans=on_panel.plans,
        triggers=on_panel.triggers,
        trade_trigger=records["trigger"],
        exit_trigger=np.where(by_signal, records["exit_trigger"], NO_TRIGGER),
        is_part=records["is_part"],
        blocks=blocks,
        triggered=followed.triggers["n_triggered"],
        entered=followed.triggers["n_entered"],
        exits_triggered=int(day["n_exits_triggered"]),
        exits=int(day["n_exits"]),
        pending_trigger=pending_trigger,
    )
