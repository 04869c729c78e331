"""The table `walk_forward_declarations`: walk-forwards declared before they were run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

EFFECTIVE = """
    SELECT configuration_id, symbol, declared_at,
           sum(greatest(versions, 1)) OVER (PARTITION BY symbol, tf)::bigint AS n
    FROM walk_forward_declarations d, LATERAL (
        SELECT count(DISTINCT set_id) AS versions FROM trials t
        WHERE (t.symbol, t.tf, t.strategy, t.configuration_id)
            = (d.symbol, d.tf, d.strategy, d.configuration_id)) tried
    WHERE d.tf = $1 AND d.symbol = ANY($2::text[])
    AND NOT EXISTS (SELECT FROM trials t
        WHERE (t.symbol, t.tf, t.strategy) = (d.symbol, d.tf, d.strategy)
        AND t.created_at <= d.declared_at)"""
"""Query of the declarations at timeframe $1 on symbols $2 that are older than all trials of their
strategy there: configuration_id, symbol, declared_at, and n, how many the symbol has. A
declaration counts once for each version of its strategy with which it was run."""


def insert_declaration(connection: Connection, row: Mapping[str, Any]) -> None:
    """Declare a walk-forward; one that is declared already keeps its stamp.

    Args:
        connection: its transaction makes the row appear.
        row: columns of `walk_forward_declarations` but `declared_at`; `params` as JSON text.
    """
    connection.execute(
        text("""
            INSERT INTO walk_forward_declarations (configuration_id, strategy, symbol, tf, params,
                                                   config_hash, window_start, window_end)
            VALUES (:configuration_id, :strategy, :symbol, :tf, CAST(:params AS jsonb),
                    :config_hash, :window_start, :window_end)
            ON CONFLICT (configuration_id) DO NOTHING
        """),
        dict(row),
    )


def declared_at(connection: Connection, configuration_id: str) -> datetime | None:
    """When a walk-forward was declared; None if it was not."""
    return connection.scalar(
        text(
            "SELECT declared_at FROM walk_forward_declarations WHERE configuration_id = :declared"
        ),
        {"declared": configuration_id},
    )


def first_trial(
    connection: Connection, strategy: str, symbol: str, tf: str
) -> tuple[int, datetime | None]:
    """How many trials the ledger has of a strategy on a partition, and when the first was made."""
    n, first = connection.execute(
        text(
            "SELECT count(*), min(created_at) FROM trials"
            " WHERE (symbol, tf, strategy) = (:symbol, :tf, :strategy)"
        ),
        {"symbol": symbol, "tf": tf, "strategy": strategy},
    ).one()
    return n, first
