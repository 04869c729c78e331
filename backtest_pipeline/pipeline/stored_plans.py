"""Plan books of the store that the environment configures; each function opens it by itself."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd

from backtest_pipeline.pipeline.planning import books
from backtest_pipeline.pipeline.planning.replan_now import replan_now
from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook

_SHOWN = (
    *("sequence", "plan_id", "effective_ts", "valid_until", "replan_reasons", "origin"),
    *("suppressed", "plan"),
)


def add_plan_book(
    name: str,
    symbols: Sequence[str],
    timeframes: Sequence[str] = ("1D",),
    *,
    strategist: str = "rules",
    config: Mapping[str, Any] | None = None,
    replans: Mapping[str, Any] | None = None,
    start: date | None = None,
) -> PlanBook:
    """Add a plan book: symbols that one strategist plans for, at each timeframe out of one account.

    Args:
        name: what to call it, up to 63 lower-case letters, digits, dots, dashes and underscores.
        symbols: symbols of the store.
        timeframes: of its bars; one run at each of them follows its plans.
        strategist, config: who plans, and its options.
        replans: when it is planned again; see docs/plans-operations.md.
        start: first day that the past is planned for; None for all of it.

    Raises:
        InvalidInput: for a name that is taken, no symbol, or an option out of bounds.
        UnknownName: for an unknown symbol, timeframe or strategist.

    Examples:
        >>> from backtest_pipeline import add_plan_book, execute
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> add_plan_book("core", ["S-ALPHA"]).timeframes
        ('1D',)
    """
    with open_workspace() as workspace:
        return books.add_book(
            workspace,
            name,
            symbols,
            timeframes,
            strategist=strategist,
            config=config,
            replans=replans,
            start=start,
            user=getpass.getuser(),
        )


def replan_book(name: str, **simulation: Any) -> dict[str, Any]:
    """Plan a book again now, and run it under its plans.

    Args:
        name: the plan book.
        simulation: costs and account of the runs, as fields of `SimulationConfig`.

    Returns:
        `reasons` of the replan, `plans`, how many are new, `sequence` of the plan in force,
        `suppressed`, whether nothing changed, and `runs`: by timeframe the `run_id`.

    Raises:
        UnknownName: where there is no such book.
        NotEnoughBars: where it has no bars at one of its timeframes, or none from its start on.
        AlreadyRunning: while another process plans the book.

    Examples:
        >>> from backtest_pipeline import add_plan_book, execute, replan_book
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> book = add_plan_book("tried", ["S-ALPHA"], replans={"judge": None})
        >>> replan_book("tried")["reasons"]
        ['initial_plan', 'manual']
    """
    with open_workspace() as workspace:
        return replan_now(workspace, name, getpass.getuser(), SimulationConfig(**simulation))


def list_plans(name: str) -> pd.DataFrame:
    """The plans of a book in order.

    Returns:
        One row a plan: sequence, plan_id, effective_ts and valid_until (UTC), replan_reasons,
        origin, suppressed, and plan (its content).

    Raises:
        UnknownName: where there is no such book.

    Examples:
        >>> from backtest_pipeline import add_plan_book, execute, list_plans
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> book = add_plan_book("fresh", ["S-ALPHA"])
        >>> len(list_plans("fresh"))
        0
    """
    with open_workspace() as workspace:
        plans = books.show_book(workspace, name).plans
    return pd.DataFrame(
        [{column: getattr(plan, column) for column in _SHOWN} for plan in plans],
        columns=pd.Index(_SHOWN),
    )
