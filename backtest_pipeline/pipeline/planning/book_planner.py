"""Plans of a book: those of its past, and the next one, each by what was known at its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from backtest_pipeline.market.errors import NotEnoughBars
from backtest_pipeline.pipeline.planning.book_data import BookData
from backtest_pipeline.pipeline.planning.judgement import follows
from backtest_pipeline.pipeline.planning.planned_account import planned_config
from backtest_pipeline.pipeline.planning.records import keep_transcript, logged, record_of
from backtest_pipeline.pipeline.planning.strategists import replan_settings, strategist_for
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.plan_tables.plan_history import LoggedPlan
from backtest_pipeline.strategist.history import Follow, plan_history
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

_STEP = timedelta(milliseconds=1)


@dataclass(frozen=True)
class MadePlans:
    """Plans of a book that are to be stored.

    Attributes:
        kept: the plan that was in force, where its validity and counts have changed; else None.
        new: those after it, in order.
        spent: why plans are lacking that another day can make; empty where none is.
    """

    kept: LoggedPlan | None
    new: tuple[LoggedPlan, ...]
    spent: str = ""

    @property
    def suppressed(self) -> bool:
        """Whether nothing was changed."""
        return not self.new and not self.spent


class BookPlanner:
    """Makes plans of a book, and keeps the conversations with a model that they come from.

    Args:
        workspace: the open store.
        book: the book.

    Raises:
        UnknownName, InvalidInput, ConfigurationError: as `strategist_for`.
    """

    def __init__(self, workspace: Workspace, book: PlanBook) -> None:
        self._workspace, self._book = workspace, book
        self._transcripts: set[str] = set()
        self._newest: Proposal | None = None
        self._spent = ""
        self._strategist = strategist_for(book, workspace.database)
        self._settings = replan_settings(book)

    def past(self, data: BookData, history: Sequence[LoggedPlan] = ()) -> MadePlans:
        """The plans of the past, from the book's first day on, or those after its history so far.

        A day at which the budget of a model is used up, and those after it, are left for another.
        """
        stored = [record_of(row) for row in history]
        first = stored or self._first(data)
        self._spent = ""  # of the walk alone: the first day has its plan
        walked = plan_history(
            self._strategist,
            data.panels,
            self._settings,
            stored=first,
            follow=self._follow(data),
            heard=self._note,
        )
        n, records = len(history), walked.records
        changed = bool(n) and records[n - 1] != stored[-1]
        return MadePlans(
            self._kept(records[n - 1], history[-1], data) if changed else None,
            tuple(self._logged(record, n + k, data) for k, record in enumerate(records[n:], 1)),
            self._spent,
        )

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

    def next(
        self, history: Sequence[LoggedPlan], data: BookData, asked: Sequence[ReplanReason]
    ) -> MadePlans:
        """The plan at the newest bar, or the one in force where that changes nothing."""
        newest, known = history[-1], data.newest_us or 0
        record = record_of(newest)
        instant = max(known, record.asked_us)  # also where the history ends before it by now
        reasons = tuple(dict.fromkeys([*due(record, instant, self._settings), *asked]))
        proposal = self._proposed(data, known, reasons, record, self._state(data, history))
        proposal = _after(record.plan, proposal, instant)
        now, suppressed = settled(record, proposal, reasons, instant)
        if suppressed:
            return MadePlans(self._kept(now, newest, data), ())
        return MadePlans(None, (self._logged(now, newest.sequence + 1, data),))

    def _kept(self, record: PlanRecord, stored: LoggedPlan, data: BookData) -> LoggedPlan:
        """A stored plan with what suppressed replans have changed of it."""
        kept = self._logged(record, stored.sequence, data)
        names = ("generated_at_actual", "origin", "origin_detail", "transcript", "model")
        return replace(kept, **{name: getattr(stored, name) for name in names})

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
        follow = self._follow(data)
        return follow([plan_from(row.plan) for row in history]).state(int(stamps[-1]))

    def _follow(self, data: BookData) -> Follow:
        config = planned_config(SimulationConfig())
        return follows(self._workspace, self._book, data, config)

    def _note(self, proposal: Proposal) -> bool:
        """Keep the transcript of a proposal at once: it is paid for, whatever becomes of it.

        Returns:
            Whether a walk over the past may go on with it.
        """
        self._newest = proposal
        self._spent = proposal.reason if proposal.over_budget else ""
        if proposal.transcript is not None:
            self._transcripts.add(proposal.transcript)
            keep_transcript(self._workspace, proposal.transcript)
        return not proposal.over_budget

    def keep_transcripts(self) -> None:
        """Store all conversations: a retention may have removed one before a plan named it."""
        for transcript in self._transcripts:
            keep_transcript(self._workspace, transcript)

    def _logged(self, record: PlanRecord, sequence: int, data: BookData) -> LoggedPlan:
        return logged(
            record,
            sequence,
            data={partition: one.generation for partition, one in data.versions.items()},
            made_at=datetime.now(UTC),
        )

    def origin(self, newest: LoggedPlan) -> tuple[str, str, str | None]:
        """How the newest proposal came about, also where it was suppressed."""
        proposal = self._newest
        if proposal is None:  # the history went on by itself
            return newest.origin, newest.origin_detail, newest.transcript
        return proposal.origin.value, proposal.reason, proposal.transcript_hash


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
