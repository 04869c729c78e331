"""Entries that runs did not make, counted and listed, and the plans that runs followed."""

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
    """Which blocks are counted; None is any.

    Attributes:
        strategy: type of the run's signal, such as `ema_crossover`.
        symbol, timeframe: what was to be traded.
        reason: one of REASONS.
    """

    strategy: str | None = None
    symbol: str | None = None
    timeframe: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.reason is not None and self.reason not in REASONS:
            raise InvalidInput(
                f"an entry is never blocked for {self.reason!r}; the reasons are "
                f"{', '.join(REASONS)}"
            )


def list_blocks(
    connection: Connection, run_id: UUID, limit: int, after: str | None = None
) -> Page[dict[str, Any]]:
    """Entries that a run did not make, by number, without the run's id.

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


def count_blocks(
    connection: Connection, wanted: BlockFilter, limit: int, after: str | None = None
) -> Page[dict[str, Any]]:
    """Why entries were blocked, for each run that has such blocks, the newest run first.

    Args:
        connection: where to look.
        wanted: which blocks; others are not counted.
        limit: runs of the page.
        after: cursor of the page before.

    Returns:
        Rows with run_id, signal_name, strategy, symbol, timeframe, completed_at, total, and
        causes: a list of reason, class and count, the most frequent first.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    bound: dict[str, Any] = {"n": require_limit(limit) + 1}
    of_run = {"r.strategy": wanted.strategy, "r.symbol": wanted.symbol, "r.tf": wanted.timeframe}
    conditions = [
        "r.completed_at IS NOT NULL",
        *equal(of_run, bound),
        *older(after, "r.completed_at", "r.run_id", bound),
    ]
    of_reason = "".join(f" AND {like}" for like in equal({"b.reason": wanted.reason}, bound))
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


def list_plans(connection: Connection, run_id: UUID) -> list[dict[str, Any]]:
    """The plans that a run followed, in their order, without the run's id."""
    rows = connection.execute(
        text("""
            SELECT replan_sequence, plan_id, generated_at_actual, effective_ts, replan_reasons,
                   plan, prompt_hash, response_hash
            FROM plan_log WHERE run_id = :run_id ORDER BY replan_sequence
        """),
        {"run_id": run_id},
    )
    return [dict(row) for row in rows.mappings()]
