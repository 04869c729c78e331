"""Entries that were not made, and plans, over HTTP."""

from __future__ import annotations

import uuid

from starlette.testclient import TestClient

from backtest_pipeline_tests.service.conftest import QUESTION, Store
from backtest_pipeline_tests.service.problems import told
from backtest_pipeline_tests.sql import execute_sql


def test_blocked_entries_are_listed_and_counted(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    run = client.post("/backtest/run", json={**QUESTION, "lot_size": 1e9}, headers=runner).json()
    address = f"/backtests/{run['run_id']}/blocks"
    first = client.get(address, params={"limit": 1}, headers=viewer).json()
    rest = client.get(address, params={"after": first["next"]}, headers=viewer).json()
    blocks = first["rows"] + rest["rows"]
    assert len(blocks) == run["blocked_entries"] > 1
    assert {(b["symbol"], b["reason"], b["class"]) for b in blocks} == {
        ("AAA", "insufficient_cash", "risk_valid")
    }
    counted = client.get("/blocks", params={"symbol": "AAA"}, headers=viewer).json()
    (row,) = [row for row in counted["rows"] if row["run_id"] == run["run_id"]]
    cause = {"reason": "insufficient_cash", "class": "risk_valid", "count": len(blocks)}
    assert (row["total"], row["causes"]) == (len(blocks), [cause])
    others = client.get("/blocks", params={"reason": "missing_indicator"}, headers=viewer).json()
    assert others == {"rows": [], "next": None}
    told(client.get("/blocks", params={"reason": "misfortune"}, headers=viewer), "BAD_PARAMS")


def test_the_plans_of_a_run_are_listed(
    client: TestClient, store: Store, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    run_id = client.post("/backtest/run", json=QUESTION, headers=runner).json()["run_id"]
    address = f"/backtests/{run_id}/plans"
    assert client.get(address, headers=viewer).json() == {"rows": []}
    execute_sql(
        store,
        """
                INSERT INTO plan_log (run_id, replan_sequence, plan_id, generated_at_actual,
                    effective_ts, valid_until, origin, replan_reasons, plan)
                VALUES (:run_id, 1, 'p-1', '2024-06-01Z', '2024-03-01Z', '2024-03-02Z', 'valid',
                    '{initial_plan}', '{"stance": "wait"}')
            """,
        run_id=run_id,
    )
    (plan,) = client.get(address, headers=viewer).json()["rows"]
    assert (plan["plan_id"], plan["plan"]) == ("p-1", {"stance": "wait"})
    assert plan["effective_ts"] == "2024-03-01T00:00:00Z"


def test_neither_is_there_for_a_run_that_is_not(client: TestClient, viewer: dict[str, str]) -> None:
    for name in ("blocks", "plans"):
        told(client.get(f"/backtests/{uuid.uuid4()}/{name}", headers=viewer), "RUN_NOT_FOUND")
