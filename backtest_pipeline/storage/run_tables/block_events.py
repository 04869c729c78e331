"""The table `block_events`: entries that runs did not make, exits of plans too, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.storage.postgres.pages import (
    Page,
    equal,
    key_of,
    older,
    page_of,
    require_limit,
)

REASONS = (
    *("daily_cap", "symbol_veto", "risk", "risk_budget", "direction", "category", "plan_limit"),
    *("expression_error", "missing_indicator", "timeframe_cap", "session_cap", "trigger_load"),
    *("min_hold", "min_flat", "insufficient_cash", "emergency_exit_veto"),
    *("pending_entry_conflict", "priority_skip", "other"),
)


@dataclass(frozen=True)
class BlockFilter:
    """Filters on blocked entries; None matches any.

    Attributes:
        strategy: the run's strategy, such as `ema_crossover`.
        symbol, timeframe: the partition.
        reason: one of REASONS.
    """

    strategy: str | None = None
    symbol: str | None = None
    timeframe: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.reason is not None and self.reason not in REASONS:
            raise InvalidInput(
                f"{self.reason!r} is not a reason for a blocked entry; use one of "
                f"{', '.join(REASONS)}"
            )


def list_blocks(
    connection: Connection, run_id: UUID, limit: int, after: str | None = None
) -> Page[dict[str, Any]]:
    """List the blocked entries of a run by number, without the run's id.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    (number,) = (0,) if after is None else key_of(after, int)
    rows = connection.execute(
        text("""
            SELECT event_no, ts, symbol, timeframe, trigger_id, side, qty, reason, class, detail
            FROM block_events WHERE run_id = :run_id AND event_no > :number
            ORDER BY event_no LIMIT :n
        """),
        {"run_id": run_id, "number": number, "n": require_limit(limit) + 1},
    )
    return page_of(rows.mappings().all(), limit, "event_no")  # pyright: ignore[reportArgumentType]


GROUPS = {
    "reason": "reason, class",
    "trigger": "trigger_id",
    "symbol": "symbol",
    "side": "side",
    "day": "(ts AT TIME ZONE 'UTC')::date",
}
"""What the blocked entries of a run can be counted by, and the columns of each."""


def group_blocks(connection: Connection, run_id: UUID, by: str) -> list[dict[str, Any]]:
    """Count blocked entries and exits of a run, the most frequent first; by day, in order of time.

    Args:
        connection: connection to the store.
        run_id: the run.
        by: one of GROUPS.

    Returns:
        Rows with what is counted by (for `reason` its `class` too), `count`, `share` (a fraction of
        all), `first_ts`, `last_ts`, and the `detail` of the newest.
    """
    columns = GROUPS[by]
    named = f"{columns} AS day" if by == "day" else columns
    order = "1" if by == "day" else "count DESC, 1"
    rows = connection.execute(
        text(f"""
            SELECT {named}, count(*) AS count,
                   count(*)::float8 / sum(count(*)) OVER ()::float8 AS share,
                   min(ts) AS first_ts, max(ts) AS last_ts,
                   (array_agg(detail ORDER BY event_no DESC))[1] AS detail
            FROM block_events WHERE run_id = :run_id GROUP BY {columns} ORDER BY {order}
        """),  # noqa: S608 - our own literals
        {"run_id": run_id},
    )
    return [dict(row) for row in rows.mappings()]


def stored_blocks(connection: Connection, run_id: UUID) -> list[dict[str, Any]]:
    """All blocked entries of a run by number, without the run's id."""
    rows = connection.execute(
        text("""
            SELECT event_no, ts, symbol, timeframe, trigger_id, side, qty, reason, class, detail
            FROM block_events WHERE run_id = :run_id ORDER BY event_no
        """),
        {"run_id": run_id},
    )
    return [dict(row) for row in rows.mappings()]


def count_blocks(
    connection: Connection, filters: BlockFilter, limit: int, after: str | None = None
) -> Page[dict[str, Any]]:
    """Count blocked entries by reason, for each run that has any, newest run first.

    Args:
        connection: connection to the store.
        filters: the blocked entries to count.
        limit: runs per page.
        after: cursor of the previous page.

    Returns:
        Rows with run_id, signal_name, strategy, symbol, timeframe, completed_at, total, and
        causes: a list of reason, class and count, the most frequent first.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    bound: dict[str, Any] = {"n": require_limit(limit) + 1}
    of_run = {"r.strategy": filters.strategy, "r.symbol": filters.symbol, "r.tf": filters.timeframe}
    conditions = [
        "r.completed_at IS NOT NULL",
        *equal(of_run, bound),
        *older(after, "r.completed_at", "r.run_id", bound),
    ]
    of_reason = "".join(f" AND {like}" for like in equal({"b.reason": filters.reason}, bound))
    query = f"""
        WITH page AS MATERIALIZED (
            SELECT r.run_id, r.signal_name, r.strategy, r.symbol, r.tf AS timeframe,
                   r.completed_at
            FROM visible_runs r
            WHERE {" AND ".join(conditions)}
              AND EXISTS (SELECT FROM block_events b WHERE b.run_id = r.run_id{of_reason})
            ORDER BY r.completed_at DESC, r.run_id DESC LIMIT :n
        )
        SELECT page.*, counted.total, counted.causes
        FROM page CROSS JOIN LATERAL (
            SELECT sum(n)::bigint AS total, jsonb_agg(
                jsonb_build_object('reason', reason, 'class', class, 'count', n)
                ORDER BY n DESC, reason, class) AS causes
            FROM (
                SELECT b.reason, b.class, count(*) AS n FROM block_events b
                WHERE b.run_id = page.run_id{of_reason} GROUP BY b.reason, b.class
            ) by_cause
        ) counted
        ORDER BY page.completed_at DESC, page.run_id DESC
    """  # noqa: S608 - the conditions are the literals above, their values are bound
    rows = connection.execute(text(query), bound).mappings().all()
    return page_of(rows, limit, "completed_at", "run_id")  # pyright: ignore[reportArgumentType]
