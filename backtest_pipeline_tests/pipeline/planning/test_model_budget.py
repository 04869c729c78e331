"""The day's budget holds for all who plan, whatever becomes of a call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from backtest_pipeline.pipeline.planning.model_budget import StoredBudget
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.strategist.llm.budget import DayBudget, DayLimits, OwnBudget
from backtest_pipeline.strategist.proposal import ModelUse

MOST, LIMITS = ModelUse(1, 100, 300, 0.5), DayLimits(1_000, 5.0)
KINDS: list[Callable[[Database], DayBudget]] = [StoredBudget, lambda _: OwnBudget()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_counts_as_the_most_it_can_use_until_it_is_settled(
    kind: Callable[[Database], DayBudget], database: Database
) -> None:
    budget = kind(database)
    first = budget.reserve("openai:m", MOST, LIMITS)
    killed = budget.reserve("openai:other", MOST, LIMITS)
    refused = budget.reserve("openai:m", MOST, LIMITS)
    assert (first.used.tokens, killed.used.tokens, refused.used.tokens) == (0, 400, 800)
    assert refused.settle is None
    assert first.settle is not None
    first.settle(ModelUse(1, 50, 50, 0.25))
    again = budget.reserve("openai:m", MOST, LIMITS)
    assert (again.used.calls, again.used.tokens, again.used.cost_usd) == (2, 500, 0.75)
    assert again.settle is not None
    assert budget.reserve("openai:m", MOST, DayLimits(10_000, 1.5)).settle is None


def test_of_two_who_ask_at_once_only_as_many_are_let_as_the_budget_holds(
    database: Database,
) -> None:
    together = Barrier(6)

    def asked(number: int) -> bool:
        together.wait()
        model = f"openai:{number % 2}"
        return StoredBudget(database).reserve(model, MOST, LIMITS).settle is not None

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(asked, range(6))) == 2
