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


def lock_use(connection: Connection) -> None:
    """Keep others from counting until the transaction ends, so that what is read stays true."""
    connection.execute(text("LOCK TABLE model_usage IN SHARE ROW EXCLUSIVE MODE"))


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


def settle_use(
    connection: Connection, day: date, model: str, *, reserved: DailyUse, used: DailyUse
) -> None:
    """Put what was used in the place of what `add_use` had counted for it before."""
    connection.execute(
        text("""
            UPDATE model_usage SET calls = greatest(calls + :calls, 0),
                tokens = greatest(tokens + :tokens, 0),
                cost_usd = greatest(cost_usd + :cost_usd, 0), updated_at = now()
            WHERE day = :day AND model = :model
        """),
        {
            "day": day,
            "model": model,
            "calls": used.calls - reserved.calls,
            "tokens": used.tokens - reserved.tokens,
            "cost_usd": used.cost_usd - reserved.cost_usd,
        },
    )
