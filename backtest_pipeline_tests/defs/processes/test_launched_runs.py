"""A run that follows plans is asked for once, again after it failed, and where data returns."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import dagster as dg
import pytest

from backtest_pipeline.defs.partitions import RANGE_START
from backtest_pipeline.defs.processes.launched_runs import follow_requests
from backtest_pipeline.pipeline.planning.due_replans import StaleRun
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook


@dg.job
def following() -> None:
    """Stands for the job of a request: only its tags are looked at."""


def stale(state: str, *symbols: str, tf: str = "1D") -> StaleRun:
    now = datetime.now(UTC)
    names = symbols or ("S-ALPHA",)
    book = PlanBook(1, "core", names, ("1H", "1D"), "rules", {}, {}, None, "ann", now)
    return StaleRun(book, tf, state)


def asked(
    instance: dg.DagsterInstance, of: StaleRun, after_minutes: float = 0
) -> dg.RunRequest | None:
    """What is asked for so long after the newest run has ended, or from now on."""
    newest = instance.get_run_records(limit=1)
    since = (newest[0].end_time if newest else None) or time.time()
    found = follow_requests(instance, [of], since + 60 * after_minutes)
    return found[0] if found else None


def started(instance: dg.DagsterInstance, request: dg.RunRequest | None) -> dg.DagsterRun:
    assert request is not None
    return instance.create_run_for_job(following, tags=dict(request.tags))


def succeeded(instance: dg.DagsterInstance, request: dg.RunRequest | None) -> None:
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "following"),
        started(instance, request).run_id,
    )


def failed(instance: dg.DagsterInstance, request: dg.RunRequest | None) -> None:
    instance.report_run_failed(started(instance, request), "its process was killed")


@pytest.mark.parametrize("symbols", [("S-ALPHA",), ("S-ALPHA", "S-BETA")])
def test_a_run_that_failed_is_asked_for_again_later_and_later(
    instance: dg.DagsterInstance, symbols: tuple[str, ...]
) -> None:
    of, keys = stale("a", *symbols), []
    for minutes in (0, 1, 2, 4):
        assert minutes == 0 or asked(instance, of, minutes - 0.1) is None
        request = asked(instance, of, minutes + 0.1)
        assert request is not None
        assert request.run_key == getattr(asked(instance, of, minutes + 0.1), "run_key", None)
        keys.append(request.run_key)
        configs = {name: op["config"] for name, op in request.run_config["ops"].items()}
        planning = "strategy_plans" if len(symbols) == 1 else "planned_portfolios"
        assert configs[planning] == {"books": ["core"], "follow_only": True}
        assert request.tags[RANGE_START] == ("S-ALPHA|1D" if len(symbols) == 1 else "1D")
        failed(instance, request)
    assert len(set(keys)) == 4
    started(instance, asked(instance, of, 10))
    assert asked(instance, of, 100) is None


def test_a_run_that_rightly_has_no_result_is_not_asked_for_again(
    instance: dg.DagsterInstance,
) -> None:
    succeeded(instance, asked(instance, stale("a")))
    assert asked(instance, stale("a"), 1000) is None
    assert asked(instance, stale("a", tf="1H")) is not None


def test_data_that_returns_is_followed_again(instance: dg.DagsterInstance) -> None:
    keys = []
    for state in ("a", "b", "a", "b"):
        request = asked(instance, stale(state))
        assert request is not None
        keys.append(request.run_key)
        succeeded(instance, request)
    assert len(set(keys)) == 4
