"""Each trigger is answered by one replan, wherever a process dies; and each run says why it is."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.defs.processes.launched_runs import BOOK_TAG, REASONS_TAG, SEQUENCE_TAG
from backtest_pipeline.pipeline.planning.books import request_replan
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.chaos.harness import random_of
from backtest_pipeline_tests.defs.replan_process import (
    KILLED,
    OF_DAEMON,
    POINTS,
    forking,
    launch,
    ticked,
)
from backtest_pipeline_tests.defs.running import materialized, rectangle, require_success, run_asset
from backtest_pipeline_tests.pipeline.planning.stores import (
    a_copy,
    a_refreshed_store,
    added,
    refreshed,
    without_last,
)
from backtest_pipeline_tests.pipeline.processes import started
from backtest_pipeline_tests.sql import column, count, execute_sql, rows, scalar
from backtest_pipeline_tests.waiting import LIMIT_S

_CURRENT = "SELECT run_id FROM backtest_runs WHERE is_current ORDER BY book"
_WAITING_ATTEMPTS = "SELECT attempt FROM replan_requests WHERE status = 'waiting'"
_UNFINISHED = [s for s in dg.DagsterRunStatus if s.value not in ("SUCCESS", "FAILURE", "CANCELED")]


@pytest.fixture(scope="module")
def refreshed_store(
    template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    yield from a_refreshed_store(template, tmp_path_factory.mktemp("planned"))


@pytest.fixture
def store(refreshed_store: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A store with bars up to five days before their end, as Dagster's processes are given it."""
    for copied in a_copy(refreshed_store):
        monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
        monkeypatch.setenv("BACKTEST_POSTGRES_DSN", copied.database.conninfo)
        monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(copied.artifacts.root))
        monkeypatch.delenv("BACKTEST_BARS", raising=False)
        yield copied


def executed(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """One tick, and the runs that it asks for."""
    requests = ticked(instance)
    for request in requests:
        launch(instance, request, None)
    return requests


def test_a_new_book_is_planned_once_and_its_run_says_why(
    store: Workspace, instance: dg.DagsterInstance
) -> None:
    assert ticked(instance) == []
    added(store)
    (request,) = executed(instance)
    tags = [request.tags[name] for name in (BOOK_TAG, REASONS_TAG, SEQUENCE_TAG)]
    assert tags == ["core", "initial_plan", "1"]
    assert materialized(instance, "strategy_plans") == {"S-ALPHA|1D"}
    assert count(store, "plans") > 0
    assert executed(instance) == []
    (answered,) = rows(store, "SELECT status, sequence, dagster_run_id FROM replan_requests")
    (run,) = instance.get_runs()
    assert (answered["status"], answered["dagster_run_id"]) == ("planned", run.run_id)


def test_three_days_without_a_daemon_are_one_replan(
    store: Workspace, instance: dg.DagsterInstance
) -> None:
    added(store, replans={"valid_days": 2.0})
    executed(instance)
    before = count(store, "plans")
    refreshed(store, without_last(2))
    (request,) = executed(instance)
    assert request.tags[REASONS_TAG] == "new_day,plan_expired"
    assert request.tags[SEQUENCE_TAG] == str(before + 1)
    assert count(store, "plans") == before + 1
    newest = "SELECT replan_reasons FROM plans ORDER BY sequence DESC LIMIT 1"
    assert scalar(store, newest) == ["new_day", "plan_expired"]
    assert executed(instance) == []


def test_a_replan_whose_run_failed_is_asked_for_again(
    store: Workspace, instance: dg.DagsterInstance
) -> None:
    book = added(store)
    (first,) = ticked(instance)
    execute_sql(store, "UPDATE plan_books SET strategist = 'gone'")
    launch(instance, first, None)
    assert [run.status.value for run in instance.get_runs()] == ["FAILURE"]
    assert ticked(instance) == []
    (request,) = rows(
        store, "SELECT attempt, error, retry_at > now() AS waits FROM replan_requests"
    )
    assert (request["attempt"], request["waits"]) == (2, True)
    assert request["error"].startswith("attempt 1: ")
    assert "'gone'" in request["error"]
    execute_sql(store, "UPDATE plan_books SET strategist = :name", name=book.strategist)
    execute_sql(store, "UPDATE replan_requests SET retry_at = now()")
    (second,) = executed(instance)
    assert second.run_key != first.run_key
    assert count(store, "replan_requests WHERE status = 'planned'") == 1


def test_a_book_whose_replan_keeps_failing_is_run_over_new_data_and_asked_again(
    store: Workspace, instance: dg.DagsterInstance
) -> None:
    added(store, replans={"judge": None})
    added(store, "pair", "S-ALPHA", "S-BETA", replans={"judge": None})
    executed(instance)
    plans, runs = count(store, "plans"), column(store, _CURRENT)
    execute_sql(store, "UPDATE plan_books SET strategist = 'gone'")
    refreshed(store, without_last(3))
    first = [str(request.run_key) for request in executed(instance)]
    assert len(first) == 2
    assert all(key.startswith("replan/") for key in first)
    assert column(store, _CURRENT) == runs
    for attempt in (2, 3):
        following = executed(instance)
        if attempt == 2:
            keys = [str(request.run_key).split("/")[:3] for request in following]
            assert keys == [["follow", "core", "1D"], ["follow", "pair", "1D"]]
            assert not {*column(store, _CURRENT)} & {*runs}
        assert executed(instance) == []
        assert set(column(store, _WAITING_ATTEMPTS)) == {attempt}
        execute_sql(store, "UPDATE replan_requests SET retry_at = now()")
        keys = [key.removesuffix("/1") + f"/{attempt}" for key in first]
        assert [request.run_key for request in executed(instance)] == keys
    assert count(store, "plans") == plans
    execute_sql(store, "UPDATE plan_books SET strategist = 'rules'")
    assert executed(instance) == []
    execute_sql(store, "UPDATE replan_requests SET retry_at = now()")
    executed(instance)
    assert count(store, "replan_requests WHERE status = 'waiting'") == 0
    assert executed(instance) == []


def test_the_launchpad_plans_again_where_nothing_asks_for_it(
    store: Workspace, instance: dg.DagsterInstance
) -> None:
    added(store)
    key = rectangle("S-ALPHA|1D", "S-ALPHA|1D")
    assert run_asset(instance, "strategy_plans", key).success
    assert column(store, "SELECT reason FROM replan_requests") == ["initial_plan"]
    config = {"ops": {"strategy_plans": {"config": {"replan": True}}}}
    assert run_asset(instance, "strategy_plans", key, config).success
    query = "SELECT reason, status FROM replan_requests ORDER BY request_id DESC LIMIT 1"
    assert rows(store, query) == [{"reason": "manual", "status": "suppressed"}]


def test_a_run_follows_the_plans_and_new_data_within_a_plan_run_it_again(
    store: Workspace, instance: dg.DagsterInstance
) -> None:
    added(store, replans={"new_day": False, "valid_days": 30.0, "judge": None})
    added(store, "pair", "S-ALPHA", "S-BETA", replans={"new_day": False, "valid_days": 30.0})
    executed(instance)
    assert materialized(instance, "planned_backtests") == {"S-ALPHA|1D"}
    assert materialized(instance, "planned_portfolios") == {"1D"}
    first = column(store, _CURRENT)
    refreshed(store, without_last(3))
    requests = executed(instance)
    assert {request.run_key.split("/")[0] for request in requests if request.run_key} == {"follow"}
    second = column(store, _CURRENT)
    assert len(first) == len(second) == 2
    assert not set(first) & set(second)
    assert executed(instance) == []


def test_a_store_without_books_has_nothing_to_plan(
    store: Workspace, instance: dg.DagsterInstance
) -> None:
    assert ticked(instance) == []
    both = rectangle("S-ALPHA|1D", "S-BETA|1D")
    require_success(run_asset(instance, "strategy_plans", both))
    found = instance.fetch_materializations(dg.AssetKey("strategy_plans"), limit=1).records
    event = found[0].asset_materialization
    assert event is not None
    assert event.metadata["dagster/row_count"].value == 0
    assert "no plan book trades S-BETA|1D alone" in str(event.metadata["why"].value)
    assert count(store, "replan_requests") == 0


class Killed:
    """A store whose ticks and runs are killed, on an instance that outlives them."""

    def __init__(self, store: Workspace, folder: Path) -> None:
        (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self.store, self.home = store, str(folder)
        self._commands, theirs = multiprocessing.Pipe()
        environment = {n: v for n, v in os.environ.items() if n.startswith("BACKTEST_")}
        self._process = started(forking, environment, self.home, theirs)

    def tick(self, point: str | None, kill_after_s: float | None = None) -> int:
        """One tick with its runs in a process of its own; its exit code."""
        self._commands.send((point, kill_after_s))
        return self._commands.recv()

    def close(self) -> None:
        self._commands.send(None)
        self._process.join(LIMIT_S)

    def settle(self) -> None:
        """What follows a kill: Dagster marks dead runs failed, and ticks go on."""
        for _ in range(4):
            with dg.DagsterInstance.from_config(self.home) as instance:
                for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
                    instance.report_run_failed(run, "its process is gone")
            execute_sql(self.store, "UPDATE replan_requests SET retry_at = now()")
            assert self.tick(None) == 0
            if not count(self.store, "replan_requests WHERE status = 'waiting'"):
                return
        pytest.fail("a request is still waiting after four ticks")


@pytest.fixture
def killed(store: Workspace, tmp_path: Path) -> Iterator[Killed]:
    found = Killed(store, tmp_path)
    yield found
    found.close()


_FEW = (
    *("after the triggers were noted", "after a run was asked for"),
    *("after the run was created", "when the requests are answered"),
)


@pytest.mark.parametrize(
    "points", [_FEW, pytest.param((*POINTS, *OF_DAEMON), marks=pytest.mark.slow)]
)
def test_a_tick_or_run_that_is_killed_anywhere_loses_no_replan_and_doubles_none(
    store: Workspace, killed: Killed, points: tuple[str, ...]
) -> None:
    keys = ["1"]
    added(store, replans={"judge": None})
    killed.settle()
    for n, point in enumerate(points):
        stop = 4.0 + n % 2  # another plan each time
        execute_sql(
            store, "UPDATE plan_books SET config = jsonb_build_object('stop_loss_pct', :n)", n=stop
        )
        before = count(store, "plans")
        assert request_replan(store, "core", "ann", key=point)
        keys.append(point)
        assert killed.tick(point) == KILLED, point
        killed.settle()
        assert count(store, "plans") == before + 1, point
        query = "SELECT trigger_key FROM replan_requests ORDER BY request_id"
        assert column(store, query) == keys


@pytest.mark.chaos
def test_two_hundred_random_kills_lose_no_replan_and_double_none(
    store: Workspace, killed: Killed
) -> None:
    rng, hits = random_of("replans"), 0
    added(store, replans={"judge": None})
    killed.settle()
    for n in range(200):
        execute_sql(
            store,
            "UPDATE plan_books SET config = jsonb_build_object('stop_loss_pct', :n)",
            n=4.0 + n % 2,
        )
        before = count(store, "plans")
        request_replan(store, "core", "ann", key=str(n))
        hits += killed.tick(None, kill_after_s=float(rng.uniform(0, 2.5))) != 0
        killed.settle()
        assert count(store, "plans") == before + 1, n
    assert hits > 50
