"""Plan books over HTTP: listed, looked at, compared, and planned again on request."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from backtest_pipeline.pipeline.planning.books import add_book
from backtest_pipeline.pipeline.planning.replan_now import replan_now
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline_tests.service.conftest import QUESTION, Store
from backtest_pipeline_tests.service.problems import told
from backtest_pipeline_tests.sql import execute_sql


@pytest.fixture
def run_id(client: TestClient, store: Store, runner: dict[str, str]) -> str:
    """A book of an asset whose bars are stored, with its plans and its run."""
    client.post("/backtest/run", json=QUESTION, headers=runner)
    execute_sql(store.database, "DELETE FROM plan_books")
    artifacts = ArtifactStore(store.folder / "artifacts")
    workspace = Workspace(store.database, artifacts)
    add_book(workspace, "core", ["AAA"], ["1D"], replans={"judge": None}, user="ann")
    (run,) = replan_now(workspace, "core", "ann")["runs"]
    return run["run_id"]


def test_books_and_plans_are_shown_and_compared(
    client: TestClient, viewer: dict[str, str], run_id: str
) -> None:
    (book,) = client.get("/plans", headers=viewer).json()["rows"]
    assert (book["name"], book["symbols"], book["timeframes"]) == ("core", ["AAA"], ["1D"])
    history = client.get("/plans/core", headers=viewer).json()
    assert history["book"] == book
    assert history["plans"][0]["replan_reasons"] == ["initial_plan"]
    assert {row["status"] for row in history["requests"]} == {"planned"}
    plan = client.get("/plans/core/1", headers=viewer).json()
    assert plan == history["plans"][0]
    same = client.get("/plans/core/diff", params={"before": 1, "after": 1}, headers=viewer).json()
    assert (same["fields"], same["added"], same["removed"]) == ({}, [], [])
    logged = client.get(f"/backtests/{run_id}/plans", headers=viewer).json()["rows"]
    assert [row["plan_id"] for row in logged] == [row["plan_id"] for row in history["plans"]]
    causes = client.get(f"/backtests/{run_id}/blocks/causes", headers=viewer).json()["rows"]
    summary = client.get(f"/backtests/{run_id}/summary", headers=viewer).json()
    total = summary["results"]["limit_enforcement"]["total"]
    assert sum(row["count"] for row in causes) == total


def test_a_replan_is_asked_for_once_for_each_key_and_by_those_who_may(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str], run_id: str
) -> None:
    assert run_id
    ask = {"key": "once"}
    first = client.post("/plans/core/replan", json=ask, headers=runner)
    assert (first.status_code, first.json()) == (202, {"book": "core", "is_new": True})
    assert not client.post("/plans/core/replan", json=ask, headers=runner).json()["is_new"]
    told(client.post("/plans/core/replan", json=ask, headers=viewer), "FORBIDDEN")
    plain = client.post("/plans/core/replan", headers=runner)
    assert (plain.status_code, plain.json()) == (202, {"book": "core", "is_new": True})
    form = {**runner, "content-type": "text/plain"}
    answer = client.post("/plans/core/replan", content=json.dumps(ask), headers=form)
    told(answer, "UNSUPPORTED_MEDIA_TYPE")
    (waiting, *_) = client.get("/plans/core", headers=viewer).json()["requests"]
    assert (waiting["reason"], waiting["status"]) == ("manual", "waiting")


def test_what_is_not_there_is_said(client: TestClient, viewer: dict[str, str]) -> None:
    for address in ("/plans/nowhere", "/plans/nowhere/1"):
        answer = client.get(address, headers=viewer)
        told(answer, "BAD_PARAMS")
        assert "nowhere" in answer.json()["detail"]
