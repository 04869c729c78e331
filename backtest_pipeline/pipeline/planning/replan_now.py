"""A replan on request, with the runs that follow it, in this process."""

from __future__ import annotations

from typing import Any

from backtest_pipeline.market.errors import NotEnoughBars
from backtest_pipeline.pipeline.planning.book_replans import replan
from backtest_pipeline.pipeline.planning.books import find_book
from backtest_pipeline.pipeline.planning.due_replans import manual_trigger
from backtest_pipeline.pipeline.planning.planned_runs import follow_book
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook


def replan_now(
    workspace: Workspace, name: str, user: str, config: SimulationConfig | None = None
) -> dict[str, Any]:
    """Plan a book again, answer all requests that wait, and run it at each of its timeframes.

    Where that fails, nothing that this call asked for waits: the error is its answer. Where days of
    the past are left for another day, what it asked for waits with them.

    Args:
        workspace: the open store.
        name: the book.
        user: who asks.
        config: costs and account of the runs; the default ones where None.

    Returns:
        book; reasons of the replan; plans, how many are new; sequence of the plan in force;
        suppressed; waits, why days of the past are left for another day; and runs: timeframe,
        run_id, is_new, judged, or why there rightly is none.

    Raises:
        UnknownName: where there is no such book.
        AlreadyRunning, NotEnoughBars: as `replans.replan`.
    """
    book = find_book(workspace, name)
    made = replan(workspace, book, asked=manual_trigger(book.book_id, user), user=user)
    runs = [_followed(workspace, book, tf, config) for tf in book.timeframes]
    return {
        "book": name,
        "reasons": list(made.reasons) if made else [],
        "plans": made.n_new if made else 0,
        "sequence": made.plans[-1].sequence if made else None,
        "suppressed": made.suppressed if made else True,
        "waits": made.waits if made else "",
        "runs": runs,
    }


def _followed(
    workspace: Workspace, book: PlanBook, tf: str, config: SimulationConfig | None
) -> dict[str, Any]:
    try:
        run = follow_book(workspace, book, tf, config or SimulationConfig())
    except NotEnoughBars as error:
        return {"timeframe": tf, "run_id": None, "why": str(error)}
    judged = list(run.judged)
    return {"timeframe": tf, "run_id": str(run.run_id), "is_new": run.is_new, "judged": judged}
