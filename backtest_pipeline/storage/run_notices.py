"""The table `run_notices`: which failed runs were notified, to whom, and what is sent again."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, text

FIRST_WAIT_S, LONGEST_WAIT_S = 60, 3600
MOST_TRIES = 10
_KEPT_DAYS = 30


class DueNotice(NamedTuple):
    """A notice that is to be sent now, its try counted already."""

    dagster_run_id: str
    receiver: str
    tries: int


def note_failures(
    connection: Connection, run_ids: Collection[str], receivers: Collection[str]
) -> int:
    """Note a notice of each run for each receiver where there is none; returns how many are new.

    Those of a month ago are forgotten: a failure that is so old is not looked for any more.
    """
    connection.execute(
        text("DELETE FROM run_notices WHERE noticed_at < now() - make_interval(days => :days)"),
        {"days": _KEPT_DAYS},
    )
    return connection.execute(
        text("""
            INSERT INTO run_notices (dagster_run_id, receiver)
            SELECT run, receiver FROM unnest(CAST(:runs AS text[])) AS run
                CROSS JOIN unnest(CAST(:receivers AS text[])) AS receiver
            ON CONFLICT DO NOTHING
        """),
        {"runs": sorted(run_ids), "receivers": sorted(receivers)},
    ).rowcount


def claim_notice(connection: Connection, receivers: Collection[str]) -> DueNotice | None:
    """The notice that has waited longest, with a try of it counted; None where none is due.

    It is due again after a while, longer each time, until it is marked as sent.
    """
    row = connection.execute(
        text("""
            UPDATE run_notices n
            SET tries = n.tries + 1, next_try_at = now() + make_interval(
                secs => least(:first * 2 ^ least(n.tries, 20), :longest))
            FROM (
                SELECT dagster_run_id, receiver FROM run_notices
                WHERE sent_at IS NULL AND next_try_at <= now() AND tries < :most
                    AND receiver = ANY(:receivers)
                ORDER BY next_try_at, dagster_run_id, receiver
                LIMIT 1 FOR UPDATE SKIP LOCKED
            ) due
            WHERE (n.dagster_run_id, n.receiver) = (due.dagster_run_id, due.receiver)
            RETURNING n.dagster_run_id, n.receiver, n.tries
        """),
        {
            "first": FIRST_WAIT_S,
            "longest": LONGEST_WAIT_S,
            "most": MOST_TRIES,
            "receivers": list(receivers),
        },
    ).one_or_none()
    return None if row is None else DueNotice(*row)


class UnsentNotices(NamedTuple):
    """Notices that a receiver did not accept for the same reason.

    Attributes:
        receiver: webhook, slack or mail.
        problem: why the last try failed.
        waiting: how many are sent again.
        given_up: how many are not, because they were tried `MOST_TRIES` times.
    """

    receiver: str
    problem: str
    waiting: int
    given_up: int


def unsent_notices(connection: Connection, receivers: Collection[str]) -> list[UnsentNotices]:
    """The notices of these receivers that were tried and not accepted, by receiver and reason."""
    rows = connection.execute(
        text("""
            SELECT receiver, problem, count(*) FILTER (WHERE tries < :most),
                count(*) FILTER (WHERE tries >= :most)
            FROM run_notices
            WHERE sent_at IS NULL AND problem <> '' AND receiver = ANY(:receivers)
            GROUP BY receiver, problem ORDER BY receiver, problem
        """),
        {"most": MOST_TRIES, "receivers": list(receivers)},
    )
    return [UnsentNotices(*row) for row in rows]


def mark_sent(connection: Connection, notice: DueNotice) -> None:
    """Record that the receiver accepted a notice."""
    connection.execute(
        text(
            "UPDATE run_notices SET sent_at = now(), problem = ''"
            " WHERE dagster_run_id = :run AND receiver = :receiver"
        ),
        {"run": notice.dagster_run_id, "receiver": notice.receiver},
    )


def mark_unsent(connection: Connection, notice: DueNotice, problem: str) -> None:
    """Record why a try to send a notice failed."""
    connection.execute(
        text(
            "UPDATE run_notices SET problem = :problem"
            " WHERE dagster_run_id = :run AND receiver = :receiver"
        ),
        {"run": notice.dagster_run_id, "receiver": notice.receiver, "problem": problem},
    )
