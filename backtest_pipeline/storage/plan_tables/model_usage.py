"""The table `model_usage`: what language models were asked for plans, by UTC day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class DailyUse:
    """What was used of language models on a UTC day.

    Attributes:
        calls: number of requests.
        tokens: of prompts and responses together.
        cost_usd: what they cost, US dollars.
    """

    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


def read_use(connection: Connection, day: date) -> DailyUse:
    """What all models together were used on a day."""
    row = connection.execute(
        text("""
            SELECT coalesce(sum(calls), 0)::int AS calls,
                   coalesce(sum(tokens), 0)::bigint AS tokens,
                   coalesce(sum(cost_usd), 0)::float8 AS cost_usd
            FROM model_usage WHERE day = :day
        """),
        {"day": day},
    ).one()
    return DailyUse(row.calls, row.tokens, row.cost_usd)


def add_use(connection: Connection, day: date, model: str, use: DailyUse) -> None:
    """Add to the use of a model on a day."""
    connection.execute(
        text("""
            INSERT INTO model_usage AS m (day, model, calls, tokens, cost_usd)
            VALUES (:day, :model, :calls, :tokens, :cost_usd)
            ON CONFLICT (day, model) DO UPDATE SET calls = m.calls + excluded.calls,
                tokens = m.tokens + excluded.tokens, cost_usd = m.cost_usd + excluded.cost_usd,
                updated_at = now()
        """),
        {"day": day, "model": model, **vars(use)},
    )
