"""Columns that plans read and bars do not give: a user's own, and ranks among all assets."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from backtest_pipeline.market.errors import UnknownColumn
from backtest_pipeline.market.features import is_given_by_bars
from backtest_pipeline.pipeline.columns.column_sets import known_sets
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.stages.columns.columns_stage import with_fresh_columns
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.simulation.columns import columns_read
from backtest_pipeline.simulation.config import PositionRules
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.rules.expressions import condition_expression
from backtest_pipeline.trading.stops import StopRules


def columns_of_plans(plans: Iterable[Plan], tf: str) -> tuple[str, ...]:
    """The columns that sizings, and triggers at a timeframe, read and bars do not give, sorted."""
    plans = list(plans)
    triggers = {t.id: t for plan in plans for t in plan.triggers if t.timeframe == tf}
    read = {name for trigger in triggers.values() for name in _reads(trigger)}
    sized = columns_read(PositionRules(StopRules(), 0, plan.sized()) for plan in plans)
    return tuple(sorted(read | {name for name in sized if not is_given_by_bars(name)}))


def _reads(trigger: Trigger) -> tuple[str, ...]:
    if trigger.strategy is not None:
        return own_columns_read(strategy_of(trigger.strategy), trigger.params)
    rules = [(where, rule) for where in ("entry", "exit") if (rule := getattr(trigger, where))]
    read = [name for where, rule in rules for name in condition_expression(rule, where).reads]
    return tuple(name for name in read if not is_given_by_bars(name))


def with_trigger_columns(
    workspace: Workspace, batch: PanelBatch, plans: Iterable[Plan]
) -> PanelBatch:
    """A batch of features with the columns beside them that plans read, up to date with both.

    They are stored and read as for a strategy. A column that there is not is left out: its trigger
    cannot be evaluated, and its blocked entries say so.

    Args:
        workspace: the open store.
        batch: the features of those symbols of a book that have bars at a timeframe.
        plans: those that are to be followed on it.

    Raises:
        ColumnsError: for a file of columns that cannot be read.
        PartitionError: where the features were replaced meanwhile.
    """
    names = _known(workspace, columns_of_plans(plans, batch.panel.timeframe.name))
    if not names:
        return batch
    return with_fresh_columns(workspace, batch, names)


def _known(workspace: Workspace, names: tuple[str, ...]) -> list[str]:
    """Those of the columns that some set has, and ranks of what can be ranked."""
    if not names:
        return []
    sets, found = known_sets(workspace, names), []
    for name in names:
        with suppress(UnknownColumn):
            sets.with_columns([name])
            found.append(name)
    return found
