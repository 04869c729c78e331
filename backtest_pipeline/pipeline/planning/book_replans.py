"""A replan of a book: what waits for it, the plan, and its answer, stored in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from backtest_pipeline.market.errors import (
    BacktestError,
    NotEnoughBars,
    StoreError,
    StoreOvertaken,
)
from backtest_pipeline.pipeline.planning.book_data import BookData, load_book
from backtest_pipeline.pipeline.planning.book_planner import BookPlanner, MadePlans
from backtest_pipeline.pipeline.planning.due_replans import (
    SENSOR,
    note_triggers_of,
    triggers_after,
)
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook, lock_book
from backtest_pipeline.storage.plan_tables.plan_history import (
    LoggedPlan,
    append_plans,
    newest_plan,
    read_plans,
    replace_newest,
)
from backtest_pipeline.storage.plan_tables.replan_requests import (
    ReplanTrigger,
    answer_requests,
    is_recorded,
    note_error,
    put_off,
    request_replans,
    waiting_requests,
)
from backtest_pipeline.storage.postgres.removals import block_removals
from backtest_pipeline.storage.postgres.session_lock import SessionLock

PLANNED, SUPPRESSED = "planned", "suppressed"


@dataclass(frozen=True)
class Replan:
    """The outcome of a replan.

    Attributes:
        book: name of the book.
        reasons: why it was asked for.
        plans: the new plans in order; of the first replan the whole past, else one. Where the
            replan changed nothing the plan that stays in force.
        n_new: how many of these are new.
        suppressed: whether it was answered, and changed nothing.
        waits: why days of the past are left for another day, and with them the answer; empty where
            none is.
    """

    book: str
    reasons: tuple[str, ...]
    plans: tuple[LoggedPlan, ...]
    n_new: int
    suppressed: bool
    waits: str = ""


@retried
def replan(
    workspace: Workspace,
    book: PlanBook,
    *,
    asked: ReplanTrigger | None = None,
    user: str = SENSOR,
    dagster_run_id: str | None = None,
) -> Replan | None:
    """Plan a book again if a request waits for that; all that wait are answered at once.

    What triggers a replan by what is stored of the book is requested first. The first replan plans
    for the past as well, each plan by what was known then. Later ones make one plan at the newest
    bar, however long ago the last one was: what was not planned for then was not traded. A book
    does not go back in time: where its history ends before its newest plan by now, the plan is made
    of what is known, and takes effect after that plan.

    Args:
        workspace: the open store.
        book: the book.
        asked: a request that is recorded with its answer, so that nothing of it waits where the
            replan fails; it waits like others where days of the past are left. None where only what
            is recorded already is answered.
        user: who asks.
        dagster_run_id: the run that does it; None for a command.

    Returns:
        What came of it; None where no request waits.

    Raises:
        AlreadyRunning: while another process plans the book.
        NotEnoughBars: where it has no bars at one of its timeframes, or none from its start on; the
            requests that wait say so.
    """
    lock = SessionLock(
        workspace.database,
        f"planner of book {book.name}",
        advice="wait until it has planned, and look at its plan with `backtest-pipeline plans list "
        f"{book.name}`",
    )
    try:
        return _Replanning(workspace, book, asked, user, dagster_run_id).answered()
    except StoreError:
        raise  # nothing can be noted, or the replan is made again
    except BacktestError as error:
        with workspace.database.begin() as connection:
            note_error(connection, book.book_id, str(error))
        raise
    finally:
        lock.release()


class _Replanning:
    """One replan of a book, whose lock this process holds."""

    def __init__(
        self,
        workspace: Workspace,
        book: PlanBook,
        asked: ReplanTrigger | None,
        user: str,
        dagster_run_id: str | None,
    ) -> None:
        self._workspace, self._book, self._run_id = workspace, book, dagster_run_id
        self._asked, self._user = asked, user
        self._planner = BookPlanner(workspace, book)

    def answered(self) -> Replan | None:
        database, book_id = self._workspace.database, self._book.book_id
        note_triggers_of(database, self._book, self._user)
        with database.begin() as connection:
            requests = waiting_requests(connection, book_id)
            history = read_plans(connection, book_id)
            if self._asked is not None and is_recorded(connection, self._asked):
                self._asked = None  # by an attempt whose connection was lost after it had planned
        if not requests and self._asked is None:
            return None
        data = load_book(self._workspace, self._book)
        _require_bars(self._book, data)
        if history:
            # The data may be newer than what was noted above.
            seen = triggers_after(history[-1], self._book, data.versions)
            with database.begin() as connection:
                requests |= request_replans(connection, seen, self._user)
        own = [] if self._asked is None else [self._asked.reason]
        asked = tuple(dict.fromkeys(map(ReplanReason, [*requests.values(), *own])))
        # The past of a book is planned while its first request waits; that may take days.
        if history and ReplanReason.INITIAL_PLAN not in asked:
            made = self._planner.next(history, data, asked)
        else:
            made = self._planner.past(data, history)
        self._store(requests, history, made)
        reasons = tuple(reason.value for reason in asked)
        plans = made.new or ((made.kept,) if made.kept else tuple(history[-1:]))
        return Replan(self._book.name, reasons, plans, len(made.new), made.suppressed, made.spent)

    def _store(
        self,
        requests: Mapping[int, str],
        history: Sequence[LoggedPlan],
        made: MadePlans,
    ) -> None:
        """Store the plans and answer the requests that the replan began with, its own included.

        Where days of the past are left, the requests wait for the next day of the budget.
        """
        book_id = self._book.book_id
        with self._workspace.database.begin() as connection:
            block_removals(connection)
            if not lock_book(connection, book_id):
                raise StoreOvertaken(
                    f"plan book {self._book.name} was removed while it was planned; add it again"
                )
            newest = newest_plan(connection, book_id)
            if newest != (history[-1] if history else None):
                raise StoreOvertaken(
                    f"plan book {self._book.name} was planned by another process meanwhile; "
                    "replan it again"
                )
            self._planner.keep_transcripts()
            if made.kept is not None:
                replace_newest(connection, book_id, made.kept)
            append_plans(connection, book_id, made.new)
            own = [] if self._asked is None else [self._asked]
            answered = [*requests, *request_replans(connection, own, self._user)]
            if made.spent:
                put_off(connection, book_id, _tomorrow(), made.spent)
                return
            newest = [*history, *([made.kept] if made.kept else []), *made.new][-1]
            answer_requests(
                connection,
                answered,
                status=SUPPRESSED if made.suppressed else PLANNED,
                sequence=newest.sequence,
                dagster_run_id=self._run_id,
                origin=self._planner.origin(newest),
            )


def _tomorrow() -> datetime:
    """When the next day of a model's budget begins."""
    return datetime.combine(datetime.now(UTC).date() + timedelta(days=1), time.min, UTC)


def _require_bars(book: PlanBook, data: BookData) -> None:
    """Raise NotEnoughBars unless a symbol of the book has bars at each of its timeframes."""
    if data.without_bars:
        raise NotEnoughBars(
            f"plan book {book.name}: no bars of {', '.join(book.symbols[:10])} are stored at "
            f"{', '.join(data.without_bars)}; refresh them first, or add the book without that "
            "timeframe"
        )
