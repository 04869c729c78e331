"""A replan of a book: what waits for it, the plan, and its answer, stored in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from backtest_pipeline.market.errors import (
    BacktestError,
    NotEnoughBars,
    StoreError,
    StoreOvertaken,
)
from backtest_pipeline.pipeline.planning.book_data import BookData, load_book
from backtest_pipeline.pipeline.planning.due_replans import (
    SENSOR,
    note_triggers_of,
    triggers_after,
)
from backtest_pipeline.pipeline.planning.judgement import follows
from backtest_pipeline.pipeline.planning.planned_account import planned_config
from backtest_pipeline.pipeline.planning.records import (
    logged,
    record_of,
    transcript_hash,
    transcript_uri,
)
from backtest_pipeline.pipeline.planning.strategists import replan_settings, strategist_for
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.simulation.config import SimulationConfig
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
    request_replans,
    waiting_requests,
)
from backtest_pipeline.storage.postgres.removals import block_removals
from backtest_pipeline.storage.postgres.session_lock import SessionLock
from backtest_pipeline.strategist.history import plan_history
from backtest_pipeline.strategist.known import (
    BookState,
    known_at,
    microseconds_of,
    stamp_of,
    stamps_of,
)
from backtest_pipeline.strategist.proposal import Proposal, terms_of
from backtest_pipeline.strategist.replans import PlanRecord, due, settled
from backtest_pipeline.strategist.strategist import StateStrategist

PLANNED, SUPPRESSED = "planned", "suppressed"
_STEP = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Replan:
    """The outcome of a replan.

    Attributes:
        book: name of the book.
        reasons: why it was asked for.
        plans: the new plans in order; of the first replan the whole past, else one. Where the
            replan changed nothing the plan that stays in force.
        suppressed: whether it changed nothing.
    """

    book: str
    reasons: tuple[str, ...]
    plans: tuple[LoggedPlan, ...]
    suppressed: bool


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
            replan fails; None where only what is recorded already is answered.
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
    with closing(lock):
        try:
            return _Replanning(workspace, book, asked, user, dagster_run_id).answered()
        except StoreError:
            raise  # nothing can be noted, or the replan is made again
        except BacktestError as error:
            with workspace.database.begin() as connection:
                note_error(connection, book.book_id, str(error))
            raise


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
        self._transcripts: dict[str, str] = {}
        self._newest: Proposal | None = None
        self._strategist = strategist_for(book, workspace.database)
        self._settings = replan_settings(book)

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
        if history:
            rows, suppressed = self._next(history, data, asked)
        else:
            rows, suppressed = self._past(data), False
        self._store(requests, history, rows, suppressed)
        reasons = tuple(reason.value for reason in asked)
        return Replan(self._book.name, reasons, tuple(rows), suppressed)

    def _past(self, data: BookData) -> list[LoggedPlan]:
        """The plans of the past, from the book's first day on."""
        first = self._first(data)
        walked = plan_history(
            self._strategist,
            data.panels,
            self._settings,
            stored=first,
            follow=follows(self._book, data, planned_config(SimulationConfig())),
            heard=self._note,
        )
        return [
            self._logged(record, number, data) for number, record in enumerate(walked.records, 1)
        ]

    def _first(self, data: BookData) -> list[PlanRecord]:
        """The plan of the first day, where the past does not begin at the first bar."""
        stamps = stamps_of(data.panels[self._book.timeframes[0]])
        if self._book.start is not None:
            start = datetime.combine(self._book.start, datetime.min.time(), UTC)
            later = stamps[stamps >= microseconds_of(start)]
            if not len(later):
                raise NotEnoughBars(
                    f"plan book {self._book.name} starts at {self._book.start}, and its newest bar "
                    f"closes at {stamp_of(int(stamps[-1])).isoformat()}; refresh its symbols once "
                    "there are bars from then on, or remove the book and add it with an earlier "
                    "start"
                )
        elif isinstance(self._strategist, StateStrategist):
            return []
        else:
            later = stamps[-1:]
        reasons = (ReplanReason.INITIAL_PLAN,)
        proposal = self._proposed(data, int(later[0]), reasons)
        return [settled(None, proposal, reasons, int(later[0]))[0]]

    def _next(
        self, history: Sequence[LoggedPlan], data: BookData, asked: Sequence[ReplanReason]
    ) -> tuple[list[LoggedPlan], bool]:
        """The plan at the newest bar, or the one in force where that changes nothing."""
        newest, known = history[-1], data.newest_us or 0
        record = record_of(newest)
        instant = max(known, record.asked_us)  # also where the history ends before it by now
        reasons = tuple(dict.fromkeys([*due(record, instant, self._settings), *asked]))
        proposal = self._proposed(data, known, reasons, record, self._state(data, history))
        proposal = _after(record.plan, proposal, instant)
        now, suppressed = settled(record, proposal, reasons, instant)
        if suppressed:
            kept = self._logged(now, newest.sequence, data)
            names = ("generated_at_actual", "origin", "origin_detail", "transcript", "model")
            return [replace(kept, **{name: getattr(newest, name) for name in names})], True
        return [self._logged(now, newest.sequence + 1, data)], False

    def _proposed(
        self,
        data: BookData,
        instant_us: int,
        reasons: tuple[ReplanReason, ...],
        record: PlanRecord | None = None,
        book: BookState | None = None,
    ) -> Proposal:
        known = known_at(
            data.panels,
            instant_us,
            reasons=reasons,
            valid_for=self._settings.valid_for(self._book.timeframes),
            book=book,
        )
        # Which may have seen bars that the history has lost since: the new plan follows it in time.
        known = replace(known, occasion=replace(known.occasion, previous=record and record.plan))
        proposal = self._strategist.plan(known)
        self._note(proposal)
        return proposal

    def _state(self, data: BookData, history: Sequence[LoggedPlan]) -> BookState | None:
        """The account at the newest bar under the plans so far, for a strategist that asks."""
        stamps = stamps_of(data.panels[self._book.timeframes[0]])
        if isinstance(self._strategist, StateStrategist) or len(stamps) < 2:
            return None
        follow = follows(self._book, data, planned_config(SimulationConfig()))
        return follow([plan_from(row.plan) for row in history]).state(int(stamps[-1]))

    def _note(self, proposal: Proposal) -> None:
        """Keep the transcript of a proposal at once: it is paid for, whatever becomes of it."""
        self._newest = proposal
        digest = transcript_hash(proposal)
        if digest is not None and proposal.transcript is not None:
            self._transcripts[digest] = proposal.transcript
            self._keep(digest, proposal.transcript)

    def _keep(self, digest: str, transcript: str) -> None:
        self._workspace.artifacts.put_file(transcript_uri(digest), transcript.encode())

    def _logged(self, record: PlanRecord, sequence: int, data: BookData) -> LoggedPlan:
        return logged(
            record,
            sequence,
            data={partition: one.generation for partition, one in data.versions.items()},
            made_at=datetime.now(UTC),
        )

    def _store(
        self,
        requests: Mapping[int, str],
        history: Sequence[LoggedPlan],
        rows: Sequence[LoggedPlan],
        suppressed: bool,
    ) -> None:
        """Store the plans and answer the requests that the replan began with, its own included."""
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
            for digest, text in self._transcripts.items():
                self._keep(digest, text)  # a retention may have removed it before a plan named it
            if suppressed:
                replace_newest(connection, book_id, rows[-1])
            else:
                append_plans(connection, book_id, rows)
            own = [] if self._asked is None else [self._asked]
            answer_requests(
                connection,
                [*requests, *request_replans(connection, own, self._user)],
                status=SUPPRESSED if suppressed else PLANNED,
                sequence=rows[-1].sequence,
                dagster_run_id=self._run_id,
                origin=self._origin(rows[-1]),
            )

    def _origin(self, newest: LoggedPlan) -> tuple[str, str, str | None]:
        """How the newest proposal came about, also where it was suppressed."""
        proposal = self._newest
        if proposal is None:  # the history went on by itself
            return newest.origin, newest.origin_detail, newest.transcript
        return proposal.origin.value, proposal.reason, transcript_hash(proposal)


def _require_bars(book: PlanBook, data: BookData) -> None:
    """Raise NotEnoughBars unless a symbol of the book has bars at each of its timeframes."""
    if data.without_bars:
        raise NotEnoughBars(
            f"plan book {book.name}: no bars of {', '.join(book.symbols[:10])} are stored at "
            f"{', '.join(data.without_bars)}; refresh them first, or add the book without that "
            "timeframe"
        )


def _after(previous: Plan, proposal: Proposal, instant_us: int) -> Proposal:
    """The proposal, in effect from an instant on at the earliest, and after the previous plan."""
    plan = proposal.plan
    earliest = max(previous.effective_ts + _STEP, stamp_of(instant_us))
    if plan.effective_ts >= earliest:
        return proposal
    fields = {
        **terms_of(plan),
        "generated_at": plan.generated_at,
        "effective_ts": earliest,
        "valid_until": earliest + (plan.valid_until - plan.effective_ts),
    }
    return replace(proposal, plan=Plan(**fields))
