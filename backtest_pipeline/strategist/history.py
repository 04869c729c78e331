"""The plans that a strategist would have made over the past, each by what was known then."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.strategist.judge import JudgeSettings, complaints, score_of
from backtest_pipeline.strategist.known import (
    Occasion,
    book_of,
    known_at,
    microseconds_of,
    stamp_of,
    stamps_of,
)
from backtest_pipeline.strategist.proposal import NOTHING_USED, ModelUse, Proposal
from backtest_pipeline.strategist.regimes import RegimeSettings, book_regimes, regime_of
from backtest_pipeline.strategist.replans import (
    DEFAULT_REPLANS,
    PlanRecord,
    ReplanSettings,
    due,
    settled,
    suppressed,
    with_complaints,
)
from backtest_pipeline.strategist.standing import BookPath
from backtest_pipeline.strategist.strategist import StateStrategist, Strategist

Follow = Callable[[Sequence[Plan]], BookPath]
"""What happens to the book under plans, over all its bars."""


@dataclass(frozen=True)
class Asked:
    """One time that a strategist was asked.

    Attributes:
        instant_us: stamp of the last bar that it knew, microseconds since 1970 UTC.
        reasons: why it was asked.
        proposal: what it proposed.
        suppressed: whether that changed nothing.
    """

    instant_us: int
    reasons: tuple[ReplanReason, ...]
    proposal: Proposal
    suppressed: bool


@dataclass(frozen=True)
class PlanHistory:
    """The plans of a book in order, and what was asked for them.

    Attributes:
        records: all plans, the stored ones that it began with too; the last of those may be valid
            for longer.
        asked: each time that the strategist was asked, from the first bar after the stored plans
            on; of a `StateStrategist` only where its state changed.
    """

    records: tuple[PlanRecord, ...]
    asked: tuple[Asked, ...]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans alone."""
        return tuple(record.plan for record in self.records)

    @property
    def use(self) -> ModelUse:
        """What all calls of language models used."""
        return sum((asked.proposal.use for asked in self.asked), NOTHING_USED)


def plan_history(
    strategist: Strategist,
    panels: Mapping[str, Panel],
    settings: ReplanSettings = DEFAULT_REPLANS,
    *,
    stored: Sequence[PlanRecord] = (),
    follow: Follow | None = None,
    heard: Callable[[Proposal], bool] | None = None,
) -> PlanHistory:
    """The plans that a strategist would have made at the bars of a book.

    A plan is made at the first bar, and then whenever one is due (`replans.due`). It sees the bars
    up to its own instant and no later one, so that what is added at the end changes no plan before;
    and continued from stored plans, the history is that of one walk from the start.

    Args:
        strategist: who plans.
        panels: as `known_at` takes them; the stamps of the shortest timeframe are the instants.
        settings: when plans are made anew.
        stored: the history so far.
        follow: how the book fares under plans; without it the judge has nothing to score, and asks
            for no plan.
        heard: is told each proposal as soon as it is made, before the next is asked for; where it
            returns False the history ends before that one.

    Raises:
        InvalidInput: for panels that are no book.
    """
    walk = _Walk(strategist, panels, settings, list(stored), heard)
    with suppress(_Ended):
        if follow is not None and settings.judge is not None:
            walk.judged(follow, settings.judge.regimes)
        elif isinstance(strategist, StateStrategist) and settings.new_day:
            walk.changes(strategist)
        else:
            walk.unjudged()
    return PlanHistory(tuple(walk.records), tuple(walk.asked))


class _Ended(Exception):
    """Ends a walk where it has come to."""


class _Walk:
    """The history as it grows."""

    def __init__(
        self,
        strategist: Strategist,
        panels: Mapping[str, Panel],
        settings: ReplanSettings,
        records: list[PlanRecord],
        heard: Callable[[Proposal], bool] | None,
    ) -> None:
        self.records = records
        self.asked: list[Asked] = []
        self._strategist, self._panels, self._settings = strategist, panels, settings
        self._heard = heard
        self._symbols, self._timeframes = book_of(panels)
        self._valid_for = settings.valid_for(self._timeframes)
        self._stamps = stamps_of(panels[self._timeframes[0]])
        # Of the instants that a `StateStrategist` is asked at, where they are known at once.
        self._states: dict[int, int] = {}
        self._path: BookPath | None = None

    @property
    def _last(self) -> PlanRecord | None:
        return self.records[-1] if self.records else None

    def _after(self, instant_us: int) -> int:
        """The first stamp after an instant, by its position."""
        return int(np.searchsorted(self._stamps, instant_us, side="right"))

    def _from(self, instant_us: int) -> int:
        """The first stamp at an instant or after it, by its position."""
        return int(np.searchsorted(self._stamps, instant_us))

    def changes(self, strategist: StateStrategist) -> None:
        """Plans at the first stamps of UTC days, where the state changes or a plan has expired."""
        stamps, record = self._stamps, self._last
        days = stamps[np.flatnonzero(np.diff(stamps // DAY_US, prepend=-1))]
        if record is not None:
            later = days[days // DAY_US > record.asked_us // DAY_US]
            days = np.append(np.int64(record.asked_us), later)
        if not len(days):
            return
        states = strategist.states(self._panels, days)
        expires = np.diff(days) >= self._valid_for // timedelta(microseconds=1)
        changed = np.flatnonzero((np.diff(states) != 0) | expires) + 1
        positions = changed if record is not None else np.append(0, changed)
        unchanged = 0
        for position in positions.tolist():
            self._suppress(days[unchanged + 1 : position])
            self._states = {int(days[position]): int(states[position])}
            self._ask(int(days[position]))
            unchanged = position
        self._suppress(days[unchanged + 1 :])

    def _suppress(self, days: np.ndarray) -> None:
        """Replans of new days that change nothing."""
        if len(days):
            self.records[-1] = suppressed(
                self.records[-1],
                (ReplanReason.NEW_DAY,),
                int(days[-1]),
                stamp_of(int(days[-1])) + self._valid_for,
                len(days),
            )

    def unjudged(self) -> None:
        """Plans at new days, and where one has expired."""
        position = 0 if self._last is None else self._after(self._last.asked_us)
        while position < len(self._stamps):
            self._ask(int(self._stamps[position]))
            record = self.records[-1]
            due_us = microseconds_of(record.plan.valid_until)
            if self._settings.new_day:
                due_us = min(due_us, (record.asked_us // DAY_US + 1) * DAY_US)
            position = self._from(due_us)

    def judged(self, follow: Follow, regimes: RegimeSettings) -> None:
        """Plans wherever one is due, the judge heard at every stamp."""
        stamps, judge = self._stamps, self._settings.judge
        if not len(stamps) or judge is None:
            return
        codes, _ = book_regimes(self._panels[self._timeframes[-1]], regimes).at(stamps)
        if isinstance(self._strategist, StateStrategist):
            if self._settings.new_day and np.all(np.diff(stamps // DAY_US) > 0):
                self._judged_by_day(self._strategist, follow, judge, codes)
                return
            states = self._strategist.states(self._panels, stamps)
            self._states = dict(zip(stamps.tolist(), states.tolist(), strict=True))
        if self.records:
            self._path = self._followed(follow)
        for position in range(self._after(self._last.asked_us) if self._last else 0, len(stamps)):
            instant = int(stamps[position])
            record, found = self._last, ()
            if record is not None and self._path is not None:
                found = _complaints(self._path, record.plan, instant, codes[position], judge)
            if self._ask(instant, found):
                self._path = self._followed(follow)

    def _judged_by_day(
        self, strategist: StateStrategist, follow: Follow, judge: JudgeSettings, codes: np.ndarray
    ) -> None:
        """The same where each bar begins a day, on which a plan is due whatever the judge says.

        What it says moves no plan of a strategist that knows no account, so that the book is
        followed once, and its complaints are added to the reasons.
        """
        first = self._after(self._last.asked_us) if self._last else 0
        self.changes(strategist)
        path = follow([record.plan for record in self.records])
        begins = [microseconds_of(record.plan.effective_ts) for record in self.records]
        complained: list[list[int]] = [[] for _ in begins]
        for position in range(first, len(self._stamps)):
            instant = int(self._stamps[position])
            number = bisect_left(begins, instant) - 1
            if number >= 0:
                plan = self.records[number].plan
                if _complaints(path, plan, instant, codes[position], judge):
                    began = instant in begins[number + 1 : number + 2]
                    complained[number + began].append(instant)
        judged_us = None
        for number, instants in enumerate(complained):
            record = with_complaints(self.records[number], begins[number], instants, judged_us)
            self.records[number], judged_us = record, record.judged_us
        reasons = dict(zip(begins, (record.reasons for record in self.records), strict=True))
        self.asked = [
            replace(asked, reasons=reasons.get(asked.instant_us, asked.reasons))
            for asked in self.asked
        ]

    def _followed(self, follow: Follow) -> BookPath:
        """What happens under the plans so far, the last of them until another replaces it."""
        *before, last = (record.plan for record in self.records)
        end = stamp_of(int(self._stamps[-1])) + self._valid_for
        return follow([*before, last.until(end)])

    def _ask(self, instant_us: int, found: Sequence[str] = ()) -> bool:
        """Ask for a plan where one is due; returns whether a new one begins."""
        reasons = due(self._last, instant_us, self._settings, found)
        if not reasons:
            return False
        proposal = self._proposed(instant_us, reasons)
        if self._heard is not None and not self._heard(proposal):
            raise _Ended
        record, is_suppressed = settled(self._last, proposal, reasons, instant_us)
        if is_suppressed:
            self.records[-1] = record
        else:
            self.records.append(record)
        self.asked.append(Asked(instant_us, reasons, proposal, is_suppressed))
        return not is_suppressed

    def _proposed(self, instant_us: int, reasons: tuple[ReplanReason, ...]) -> Proposal:
        previous = self._last.plan if self._last else None
        book = self._path.state(instant_us) if self._path is not None else None
        strategist, state = self._strategist, self._states.get(instant_us)
        if isinstance(strategist, StateStrategist) and state is not None:
            occasion = Occasion(
                instant_us,
                self._symbols,
                self._timeframes,
                reasons,
                self._valid_for,
                previous,
                book,
            )
            return strategist.plan_in(state, occasion)
        known = known_at(
            self._panels,
            instant_us,
            reasons=reasons,
            valid_for=self._valid_for,
            previous=previous,
            book=book,
        )
        return strategist.plan(known)


def _complaints(
    path: BookPath, plan: Plan, instant_us: int, code: int, judge: JudgeSettings
) -> tuple[str, ...]:
    """What the judge complains of at an instant, in a regime of this code."""
    standing = path.standing(microseconds_of(plan.effective_ts), instant_us)
    score = score_of(standing, plan.regime, regime_of(int(code)), judge)
    return complaints(standing, score, judge)
