"""The day's budget of language models, held in the store for all processes that plan."""

from __future__ import annotations

from datetime import UTC, datetime

from backtest_pipeline.storage.plan_tables.model_usage import (
    DailyUse,
    add_use,
    lock_use,
    read_use,
    settle_use,
)
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.strategist.llm.budget import DayLimits, Reservation
from backtest_pipeline.strategist.proposal import ModelUse


class StoredBudget:
    """Counts calls in `model_usage`, in a transaction of their own each, whatever becomes of them.

    Args:
        database: of the store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, model: str, most: ModelUse, limits: DayLimits) -> Reservation:
        """Count a call of this model; see `DayBudget.reserve`."""
        day, reserved = datetime.now(UTC).date(), _daily(most)
        with self._database.begin() as connection:
            lock_use(connection)
            before = read_use(connection, day)
            used = ModelUse(before.calls, before.tokens, 0, before.cost_usd)
            if not limits.allow(used, most):
                return Reservation(used, None)
            add_use(connection, day, model, reserved)

        def settle(use: ModelUse) -> None:
            with self._database.begin() as connection:
                settle_use(connection, day, model, reserved=reserved, used=_daily(use))

        return Reservation(used, settle)


def _daily(use: ModelUse) -> DailyUse:
    return DailyUse(use.calls, use.tokens, use.cost_usd)
