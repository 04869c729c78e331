"""Strategies that triggers follow are probed for look-ahead before a run under plans."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.look_ahead_guard import require_probed
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.strategies.registry import strategy_of


def require_triggers_probed(workspace: Workspace, panel: Panel, plans: Iterable[Plan]) -> None:
    """Raise unless the strategies that triggers of a panel follow pass the probe.

    A rule of a trigger is of a closed language, in which no later bar can be read.

    Args:
        workspace: the open store, which keeps the verdicts.
        panel: the features that they are computed on, with columns beside them.
        plans: those that are to be followed.

    Raises:
        LooksAhead, StrategyRefused: as `require_probed`.
    """
    tf, found = panel.timeframe.name, dict[str, list[dict[str, Any]]]()
    triggers = {t.id: t for plan in plans for t in plan.triggers if t.timeframe == tf}
    for trigger in triggers.values():
        if trigger.strategy is not None and trigger.symbol in panel.assets:
            found.setdefault(trigger.strategy, []).append(trigger.params)
    for name, params in sorted(found.items()):
        require_probed(workspace, strategy_of(name), params, panel)
