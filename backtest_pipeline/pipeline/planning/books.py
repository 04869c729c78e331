"""Plan books: add, show and remove them, ask for a replan, and read what was planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.planning.due_replans import initial_trigger, manual_trigger
from backtest_pipeline.pipeline.planning.plan_changes import PlanChanges, plan_changes
from backtest_pipeline.pipeline.planning.strategists import require_strategist, settings_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.plan_tables.plan_books import (
    PlanBook,
    delete_book,
    insert_book,
    list_books,
    read_book,
)
from backtest_pipeline.storage.plan_tables.plan_history import LoggedPlan, read_plans
from backtest_pipeline.storage.plan_tables.replan_requests import list_requests, request_replans
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.storage.tables.dimensions import known_symbols
from backtest_pipeline.storage.tables.timeframes import refreshed_timeframes, require_refreshed

_MOST_SYMBOLS = 1000
_REQUESTS_SHOWN = 20


@dataclass(frozen=True)
class BookDetail:
    """A book with its history.

    Attributes:
        book: the book.
        plans: its plans in order.
        requests: its newest requests for replans, newest first.
    """

    book: PlanBook
    plans: Sequence[LoggedPlan]
    requests: Sequence[Mapping[str, Any]]


def add_book(
    workspace: Workspace,
    name: str,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    *,
    strategist: str = "rules",
    config: Mapping[str, Any] | None = None,
    replans: Mapping[str, Any] | None = None,
    start: date | None = None,
    user: str,
) -> PlanBook:
    """Add a plan book, whose first plan is asked for with it.

    Args:
        workspace: the open store.
        name: what to call it.
        symbols: what it trades, at each timeframe out of one account; each must be
            known to the store, and may not have bars yet.
        timeframes: of its bars; one run at each of them follows its plans.
        strategist, config: who plans, and its options as JSON values.
        replans: when it is planned again: fields of `strategist.replans.ReplanSettings`.
        start: first day that the past is planned for; None for all of it, where the strategist
            needs no model, else for the newest bar alone.
        user: who adds it.

    Raises:
        InvalidInput: for a name that is taken or cannot be one, no symbol, too many, a timeframe
            that no refresh computes, a start in the future, or an option out of bounds.
        UnknownName: for an unknown symbol, timeframe, strategist or option.
    """
    config, replans = dict(config or {}), dict(replans or {})
    if not symbols or not timeframes:
        raise InvalidInput(f"plan book {name} needs at least one symbol and one timeframe")
    if len(set(symbols)) > _MOST_SYMBOLS:
        raise InvalidInput(
            f"plan book {name}: {len(set(symbols)):,} symbols, and a book may have at most "
            f"{_MOST_SYMBOLS:,}; split it into several books"
        )
    if start is not None and start > (today := datetime.now(UTC).date()):
        raise InvalidInput(
            f"plan book {name} cannot start at {start}, which is in the future (today is {today} "
            "UTC); leave the start out, or give a day that has bars"
        )
    require_strategist(strategist, config)
    settings_of(replans)
    found = {tf.name: tf for tf in map(timeframe, timeframes)}
    shortest_first = sorted(found, key=lambda tf: found[tf].sort_key)
    with workspace.database.begin() as connection:
        require_refreshed(found, refreshed_timeframes(connection, load_settings().timeframes))
        known = known_symbols(connection)
        for symbol in symbols:
            if symbol not in known:
                raise UnknownName("symbol of the store", symbol, sorted(known))
        book = insert_book(
            connection,
            name=name,
            symbols=symbols,
            timeframes=shortest_first,
            strategist=strategist,
            config=config,
            replans=replans,
            start=start,
            created_by=user,
        )
        request_replans(connection, [initial_trigger(book.book_id)], user)
    return book


def remove_book(workspace: Workspace, name: str) -> None:
    """Remove a book with its plans; runs that followed them stay, each with its own copy.

    Raises:
        UnknownName: where there is none of this name.
    """
    with workspace.database.begin() as connection:
        delete_book(connection, name)


def all_books(workspace: Workspace) -> list[PlanBook]:
    """All plan books, by name."""
    with workspace.database.begin() as connection:
        return list_books(connection)


def books_at(
    workspace: Workspace, timeframes: Sequence[str], symbols: Sequence[str] | None = None
) -> list[PlanBook]:
    """The books at any of these timeframes by name, of one of these symbols alone where given."""
    with workspace.database.begin() as connection:
        return list_books(connection, timeframes=timeframes, symbols=symbols)


def stored_plans(workspace: Workspace, book: PlanBook) -> list[LoggedPlan]:
    """The plans of a book in order."""
    with workspace.database.begin() as connection:
        return read_plans(connection, book.book_id)


def find_book(workspace: Workspace, name: str) -> PlanBook:
    """The book of this name; raises UnknownName where there is none."""
    with workspace.database.begin() as connection:
        return read_book(connection, name)


def show_book(workspace: Workspace, name: str) -> BookDetail:
    """A book with its plans and newest requests; raises UnknownName where there is none."""
    with workspace.database.begin() as connection:
        book = read_book(connection, name)
        return BookDetail(
            book,
            read_plans(connection, book.book_id),
            list_requests(connection, book.book_id, _REQUESTS_SHOWN),
        )


def show_plan(workspace: Workspace, name: str, sequence: int) -> LoggedPlan:
    """A plan of a book by its number.

    Raises:
        UnknownName: for a book that there is not.
        InvalidInput: for a number that no plan of it has.
    """
    plans = show_book(workspace, name).plans
    for plan in plans:
        if plan.sequence == sequence:
            return plan
    count = f"1 to {len(plans)}" if plans else "none yet"
    raise InvalidInput(f"plan book {name} has no plan {sequence}; its plans are {count}")


def compare_plans(workspace: Workspace, name: str, before: int, after: int) -> PlanChanges:
    """What a plan of a book changed against another, by their numbers; raises as `show_plan`."""
    return plan_changes(show_plan(workspace, name, before), show_plan(workspace, name, after))


def request_replan(workspace: Workspace, name: str, user: str, key: str | None = None) -> bool:
    """Ask for a replan of a book; the sensor `replans` launches it.

    Args:
        workspace: the open store.
        name: the book.
        user: who asks.
        key: tells the request from others; the same one asks once. A new one where None.

    Returns:
        Whether the request is new.

    Raises:
        UnknownName: where there is no such book.
    """
    book = find_book(workspace, name)
    trigger = manual_trigger(book.book_id, user, key)
    with workspace.database.begin() as connection:
        return bool(request_replans(connection, [trigger], user))
