"""Runs in quarantine: their replay gave a different result, until a replay confirms them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text


def quarantine_run(
    connection: Connection, run_id: uuid.UUID, *, expected: str, found: str, reason: str
) -> None:
    """Put a run in quarantine; one that is in it already keeps its `quarantined_at`.

    Args:
        connection: connection of the transaction.
        run_id: the run.
        expected, found: fingerprints of the stored result and of the replay.
        reason: what differs, in words.
    """
    connection.execute(
        text("""
            INSERT INTO quarantined_runs (run_id, expected, found, reason)
            VALUES (:run_id, :expected, :found, :reason)
            ON CONFLICT (run_id) DO UPDATE SET expected = excluded.expected,
                found = excluded.found, reason = excluded.reason
        """),
        {"run_id": run_id, "expected": expected, "found": found, "reason": reason},
    )


def release_run(connection: Connection, run_id: uuid.UUID) -> bool:
    """Lift a run's quarantine; returns whether it was in one."""
    ended = connection.execute(
        text("DELETE FROM quarantined_runs WHERE run_id = :run_id"), {"run_id": run_id}
    )
    return ended.rowcount > 0


def quarantined_runs(
    connection: Connection,
    *,
    split: str = "full",
    timeframes: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
) -> list[Mapping[str, Any]]:
    """Current runs in quarantine, with since when and why, in a stable order.

    Args:
        connection: connection to the store.
        split: `full` or `walk_forward`.
        timeframes, symbols: only these, if given.
    """
    rows = connection.execute(
        text("""
            SELECT r.run_id, r.signal_name, r.symbol, r.tf, q.quarantined_at, q.expected, q.found,
                   q.reason
            FROM quarantined_runs q JOIN visible_runs r USING (run_id)
            WHERE r.is_current AND r.split = :split
              AND (CAST(:timeframes AS text[]) IS NULL OR r.tf = ANY(:timeframes))
              AND (CAST(:symbols AS text[]) IS NULL OR r.symbol = ANY(:symbols))
            ORDER BY r.tf, r.signal_name, r.symbol, r.run_id
        """),
        {
            "split": split,
            "timeframes": None if timeframes is None else list(timeframes),
            "symbols": None if symbols is None else list(symbols),
        },
    )
    return [dict(row) for row in rows.mappings()]
