"""The table `replan_requests`: the triggers of replans, each once, until one has answered them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from backtest_pipeline.storage.postgres import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

# After the first failed attempt; each further one waits twice as long, up to an hour.
FIRST_WAIT_S, LONGEST_WAIT_S = 60, 3600


@dataclass(frozen=True)
class ReplanTrigger:
    """What asks for a replan of a book.

    Attributes:
        book_id: the book.
        reason: one of `plans.vocabulary.ReplanReason`.
        key: tells it from others of the reason, whoever sees it and however often.
        detail: in words, with its numbers.
    """

    book_id: int
    reason: str
    key: str
    detail: str


@dataclass(frozen=True)
class WaitingReplan:
    """The requests of a book that wait for one replan together.

    Attributes:
        book_id, book, symbols, timeframes: the book.
        request_id: the oldest of the requests.
        attempt: number of the attempt that is due or under way.
        is_due: whether it may begin now.
        reasons: of all its requests, in order of first request.
        sequence: of the plan that will answer them.
    """

    book_id: int
    book: str
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    request_id: int
    attempt: int
    is_due: bool
    reasons: tuple[str, ...]
    sequence: int


_REQUEST = """
    INSERT INTO replan_requests (book_id, reason, trigger_key, detail, requested_by)
    SELECT book_id, {reason}, {key}, {detail}, {requested_by}
    FROM plan_books WHERE book_id = {book_id}
    ON CONFLICT (book_id, reason, trigger_key) DO NOTHING"""
_BOUND = ("book_id", "reason", "key", "detail", "requested_by")


def request_replans(
    connection: Connection, triggers: Sequence[ReplanTrigger], requested_by: str
) -> dict[int, str]:
    """Record triggers; returns the reasons of those that are new by the id of their request.

    One that is recorded already stays as it is.
    """
    query = text(_REQUEST.format(**{name: f":{name}" for name in _BOUND}) + " RETURNING request_id")
    new = {}
    for trigger in triggers:
        added = connection.execute(query, {**vars(trigger), "requested_by": requested_by})
        new |= dict.fromkeys(added.scalars(), trigger.reason)
    return new


def request_replans_with(
    cursor: Cursor, triggers: Sequence[ReplanTrigger], requested_by: str
) -> None:
    """As `request_replans`, in the transaction that publishes the run that triggers them."""
    casts = dict.fromkeys(_BOUND, "text") | {"book_id": "int"}
    query = _REQUEST.format(**{name: f"${n}::{casts[name]}" for n, name in enumerate(_BOUND, 1)})
    for trigger in triggers:
        values = {**vars(trigger), "requested_by": requested_by}
        copy.run(cursor, query, *(values[name] for name in _BOUND))


def is_recorded(connection: Connection, trigger: ReplanTrigger) -> bool:
    """Whether a trigger has a request, waiting or answered."""
    found = connection.execute(
        text("""
            SELECT FROM replan_requests
            WHERE book_id = :book_id AND reason = :reason AND trigger_key = :key
        """),
        {"book_id": trigger.book_id, "reason": trigger.reason, "key": trigger.key},
    )
    return found.first() is not None


def waiting_replans(connection: Connection) -> list[WaitingReplan]:
    """The books with requests that no replan has answered, oldest request first."""
    rows = connection.execute(
        text("""
            SELECT w.*, b.name AS book, b.symbols, b.timeframes,
                   1 + coalesce((SELECT max(p.sequence) FROM plans p
                                 WHERE p.book_id = w.book_id), 0) AS sequence
            FROM (
                SELECT book_id, min(request_id) AS request_id,
                       (array_agg(attempt ORDER BY request_id))[1] AS attempt,
                       bool_or(retry_at <= now()) AS is_due,
                       array_agg(reason ORDER BY request_id) AS reasons
                FROM replan_requests WHERE status = 'waiting' GROUP BY book_id
            ) w JOIN plan_books b USING (book_id)
            ORDER BY request_id
        """)
    )
    return [
        WaitingReplan(
            **{  # pyright: ignore[reportArgumentType]
                **row,
                "symbols": tuple(row["symbols"]),
                "timeframes": tuple(row["timeframes"]),
                "reasons": tuple(dict.fromkeys(row["reasons"])),
            }
        )
        for row in rows.mappings()
    ]


def ask_again(connection: Connection, waiting: WaitingReplan, why: str) -> bool:
    """Count the attempt of a replan as failed, so that another follows after a while.

    What the attempt has noted itself says more than how its run ended, and stays; see `note_error`.

    Returns:
        Whether this call did; False where a replan has answered, or somebody else has counted it.
    """
    changed = connection.execute(
        text("""
            WITH oldest AS (
                SELECT book_id, attempt FROM replan_requests
                WHERE request_id = :request_id AND status = 'waiting' AND attempt = :attempt
                FOR UPDATE
            )
            UPDATE replan_requests r SET attempt = r.attempt + 1,
                error = CASE WHEN starts_with(r.error, concat('attempt ', r.attempt, ': '))
                    THEN r.error ELSE :why END,
                retry_at = greatest(r.retry_at, now() + make_interval(
                    secs => least(:longest, :first * 2.0 ^ least(oldest.attempt - 1, 20))))
            FROM oldest WHERE r.book_id = oldest.book_id AND r.status = 'waiting'
        """),
        {
            "request_id": waiting.request_id,
            "attempt": waiting.attempt,
            "why": why,
            "first": FIRST_WAIT_S,
            "longest": LONGEST_WAIT_S,
        },
    )
    return changed.rowcount > 0


def note_error(connection: Connection, book_id: int, why: str) -> None:
    """Say at a book's requests that wait how the attempt to answer them ended."""
    connection.execute(
        text("""
            UPDATE replan_requests SET error = concat('attempt ', attempt, ': ', CAST(:why AS text))
            WHERE book_id = :book_id AND status = 'waiting'
        """),
        {"book_id": book_id, "why": why},
    )


def put_off(connection: Connection, book_id: int, until: datetime, why: str) -> None:
    """Let a book's requests that wait wait until then, and say why."""
    note_error(connection, book_id, why)
    connection.execute(
        text("""
            UPDATE replan_requests SET retry_at = :until
            WHERE book_id = :book_id AND status = 'waiting'
        """),
        {"book_id": book_id, "until": until},
    )


def waiting_requests(connection: Connection, book_id: int) -> dict[int, str]:
    """The reasons of a book's requests that no replan has answered, by id, oldest first."""
    rows = connection.execute(
        text("""
            SELECT request_id, reason FROM replan_requests
            WHERE book_id = :book_id AND status = 'waiting' ORDER BY request_id
        """),
        {"book_id": book_id},
    )
    return {row.request_id: row.reason for row in rows}


def answer_requests(
    connection: Connection,
    request_ids: Sequence[int],
    *,
    status: str,
    sequence: int,
    dagster_run_id: str | None,
    origin: tuple[str, str, str | None],
) -> None:
    """Mark requests as answered by a replan, in the transaction that stores its plan.

    Args:
        connection: of that transaction.
        request_ids: the requests that the replan began with.
        status: `planned`, or `suppressed` where it changed nothing.
        sequence: the plan that answers them.
        dagster_run_id: the run that planned; None for a command.
        origin: how the proposal came about, why, and its transcript; see `LoggedPlan`.
    """
    connection.execute(
        text("""
            UPDATE replan_requests SET status = :status, sequence = :sequence,
                dagster_run_id = :dagster_run_id, completed_at = now(), error = NULL,
                origin = :origin, origin_detail = :origin_detail, transcript = :transcript
            WHERE request_id = ANY(:request_ids) AND status = 'waiting'
        """),
        {
            "request_ids": list(request_ids),
            "status": status,
            "sequence": sequence,
            "dagster_run_id": dagster_run_id,
            **dict(zip(("origin", "origin_detail", "transcript"), origin, strict=True)),
        },
    )


def list_requests(connection: Connection, book_id: int, limit: int) -> list[dict[str, Any]]:
    """The newest requests of a book, newest first."""
    rows = connection.execute(
        text("""
            SELECT request_id, reason, trigger_key, detail, requested_by, requested_at, status,
                   attempt, retry_at, error, dagster_run_id, completed_at, sequence, origin,
                   origin_detail, transcript
            FROM replan_requests WHERE book_id = :book_id ORDER BY request_id DESC LIMIT :n
        """),
        {"book_id": book_id, "n": limit},
    )
    return [dict(row) for row in rows.mappings()]
