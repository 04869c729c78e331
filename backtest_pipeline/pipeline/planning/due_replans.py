"""Which books have to be planned again, and which of their replans Dagster has to run.

A trigger is a row of `replan_requests`, unique by book, reason and key: whoever sees it, however
often and however late, it asks for one replan. The row waits until a replan has stored its answer
in the same transaction as the plan, so that nothing is lost or done twice wherever a process dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.planning.records import record_of
from backtest_pipeline.pipeline.planning.strategists import replan_settings
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.plans.vocabulary import ReplanReason
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook, list_books
from backtest_pipeline.storage.plan_tables.plan_history import LoggedPlan, newest_plan
from backtest_pipeline.storage.plan_tables.replan_requests import (
    ReplanTrigger,
    WaitingReplan,
    ask_again,
    request_replans,
    waiting_replans,
)
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.runs import followed_by_runs
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    dataset_of_key,
    read_versions,
)
from backtest_pipeline.strategist.known import microseconds_of, stamp_of
from backtest_pipeline.strategist.replans import due

SENSOR = "sensor"
"""Who requests what the sensor sees, in `replan_requests.requested_by`."""


@dataclass(frozen=True)
class ReplanRuns:
    """The state of the Dagster runs of replans, by request and attempt.

    Attributes:
        under_way: those whose run is queued or running.
        ended: how the others have ended, in words.
    """

    under_way: frozenset[tuple[int, int]]
    ended: Mapping[tuple[int, int], str]


def note_triggers(database: Database) -> int:
    """Record what triggers a replan of any book, by what is stored; returns how many are new."""
    with database.begin() as connection:
        books = list_books(connection)
    return sum(note_triggers_of(database, book, SENSOR) for book in books)


def note_triggers_of(database: Database, book: PlanBook, user: str) -> int:
    """As `note_triggers`, of one book, for a user who asks for it."""
    triggers = triggers_of(database, book)
    with database.begin() as connection:
        return len(request_replans(connection, triggers, user))


def replans_to_launch(
    database: Database, launched: Callable[[Sequence[WaitingReplan]], ReplanRuns]
) -> list[WaitingReplan]:
    """The replans to launch now; one whose run has ended without an answer is asked for again.

    Any number of processes may do this at the same time.

    Args:
        database: the store's database.
        launched: tells the state of the runs of replans.
    """
    with database.begin() as connection:
        waiting = waiting_replans(connection)
    if not waiting:
        return []
    runs, to_launch = launched(waiting), []
    for replan in waiting:
        key = (replan.request_id, replan.attempt)
        if key in runs.ended:
            with database.begin() as connection:
                ask_again(connection, replan, runs.ended[key])
        elif key not in runs.under_way and replan.is_due:
            to_launch.append(replan)
    return to_launch


@dataclass(frozen=True)
class StaleRun:
    """A run under the plans of a book that is missing, or was made from other data or plans.

    Attributes:
        book: the book.
        timeframe: that of the run.
        state: hash of the data and the plan that a new run would follow.
    """

    book: PlanBook
    timeframe: str
    state: str


def stale_runs(database: Database) -> list[StaleRun]:
    """The runs to be made under plans that are in force.

    That of a book whose replan may begin now follows the replan. Where the replan has failed and
    is to be tried again later, the book goes on under the plans that it has.
    """
    with database.begin() as connection:
        planned_first = {one.book_id for one in waiting_replans(connection) if one.is_due}
        books = [book for book in list_books(connection) if book.book_id not in planned_first]
    found = []
    for book in books:
        with database.begin() as connection:
            plan = newest_plan(connection, book.book_id)
            followed = followed_by_runs(connection, book.name)
        if plan is None:
            continue
        versions = {key: one.version for key, one in known_versions(database, book).items()}
        for tf in book.timeframes:
            own = {k: v for k, v in versions.items() if Partition.parse(k).timeframe == tf}
            plans = {"plan_id": plan.plan_id, "suppressed": plan.suppressed}
            now = {"dataset_version_ids": own, **plans}
            if own and _read_by(followed.get(tf, {})) != now:
                found.append(StaleRun(book, tf, hash_of(now)))
    return found


def _read_by(followed: Mapping[str, Any]) -> dict[str, Any]:
    """What a run followed, of its data the features alone; empty where there is no run."""
    return {
        name: {k: v for k, v in value.items() if dataset_of_key(k)[1] == "features"}
        if name == "dataset_version_ids"
        else value
        for name, value in followed.items()
        if name != "tf"
    }


def triggers_of(database: Database, book: PlanBook) -> list[ReplanTrigger]:
    """What triggers a replan of a book, by what is stored of it; empty where nothing does."""
    with database.begin() as connection:
        plan = newest_plan(connection, book.book_id)
    if plan is None:
        return [initial_trigger(book.book_id)]
    return triggers_after(plan, book, known_versions(database, book))


def triggers_after(
    plan: LoggedPlan, book: PlanBook, versions: Mapping[str, DatasetVersion]
) -> list[ReplanTrigger]:
    """What triggers a replan of a book after its newest plan.

    Args:
        plan: the newest plan.
        book: the book.
        versions: the features of its symbols by partition, those that have rows.
    """
    return [
        ReplanTrigger(book.book_id, reason.value, key, detail)
        for reason, key, detail in (
            *_due(plan, book, versions),
            *_restated(plan, versions),
            *_new_assets(plan, versions),
        )
    ]


def initial_trigger(book_id: int) -> ReplanTrigger:
    """What asks for the first plan of a book."""
    return ReplanTrigger(book_id, ReplanReason.INITIAL_PLAN.value, "1", "the book has no plan yet")


def manual_trigger(book_id: int, user: str, key: str | None = None) -> ReplanTrigger:
    """A replan that a user asks for; one of its own where the key is None."""
    reason = ReplanReason.MANUAL.value
    return ReplanTrigger(book_id, reason, key or str(uuid4()), f"asked for by {user}")


def known_versions(database: Database, book: PlanBook) -> dict[str, DatasetVersion]:
    """The stored features of a book's symbols by partition, those that have rows."""
    partitions = [Partition(symbol, tf) for symbol in book.symbols for tf in book.timeframes]
    with database.begin() as connection:
        stored = read_versions(connection, "features", partitions)
    return {str(partition): version for partition, version in stored.items() if version.n_rows}


_Seen = tuple[ReplanReason, str, str]
"""A reason, the key of the trigger, and the trigger in words."""


def _due(plan: LoggedPlan, book: PlanBook, versions: Mapping[str, DatasetVersion]) -> list[_Seen]:
    """A new day, or bars past the validity of the newest plan."""
    newest = max((v.last_ts for v in versions.values() if v.last_ts is not None), default=None)
    if newest is None or newest <= microseconds_of(plan.asked_at):
        return []
    at, until = _text(stamp_of(newest)), _text(plan.valid_until)
    words = {
        ReplanReason.NEW_DAY: (at[:10], f"there are bars up to {at}"),
        ReplanReason.PLAN_EXPIRED: (
            until,
            f"plan {plan.sequence} was valid until {until}, and there are bars up to {at}",
        ),
    }
    return [
        (reason, *words[reason]) for reason in due(record_of(plan), newest, replan_settings(book))
    ]


def _restated(plan: LoggedPlan, versions: Mapping[str, DatasetVersion]) -> list[_Seen]:
    known = plan.data
    changed = {
        partition: version.generation
        for partition, version in sorted(versions.items())
        if known.get(partition, version.generation) != version.generation
    }
    if not changed:
        return []
    detail = f"history of {', '.join(changed)} has changed since plan {plan.sequence}"
    return [(ReplanReason.DATA_RESTATED, hash_of(changed), detail)]


def _new_assets(plan: LoggedPlan, versions: Mapping[str, DatasetVersion]) -> list[_Seen]:
    return [
        (
            ReplanReason.NEW_ASSET,
            partition,
            f"{partition} had no bars at plan {plan.sequence}, and has some now",
        )
        for partition in sorted(versions.keys() - plan.data.keys())
    ]


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
