"""Plans of a language model: recorded, paid for once, replayed without asking, and flagged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import time, timedelta
from typing import Any

import pytest

from backtest_pipeline.pipeline.planning.book_data import load_book
from backtest_pipeline.pipeline.planning.book_replans import replan
from backtest_pipeline.pipeline.planning.books import find_book, request_replan, stored_plans
from backtest_pipeline.pipeline.planning.judgement import judged
from backtest_pipeline.pipeline.planning.planned_account import planned_config
from backtest_pipeline.pipeline.planning.planned_runs import follow_book
from backtest_pipeline.pipeline.planning.records import record_of, transcript_uri
from backtest_pipeline.pipeline.planning.replan_now import replan_now
from backtest_pipeline.pipeline.replay.export import bundle_files
from backtest_pipeline.pipeline.replay.worker import PROTOCOL, respond
from backtest_pipeline.pipeline.replay.worker_process import ReplayRequest
from backtest_pipeline.pipeline.runs.query import get_run
from backtest_pipeline.pipeline.runs.retention import retain
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs
from backtest_pipeline.strategist.judge import JudgeSettings
from backtest_pipeline.strategist.known import stamp_of
from backtest_pipeline.strategist.replans import ReplanSettings
from backtest_pipeline_tests.pipeline.planning.stores import (
    SYMBOLS,
    added,
    market,
    refreshed,
    without_last,
)
from backtest_pipeline_tests.sql import execute_sql, rows
from backtest_pipeline_tests.strategist.llm.models import GOOD, KEY, completion, provider

NO_JUDGE = {"judge": None}
WAITING = """SELECT reason, error, retry_at, retry_at > now() AS waits FROM replan_requests
    WHERE status = 'waiting' AND reason = 'initial_plan'"""

ASKED = """SELECT status, requested_by, retry_at > now() AS waits
    FROM replan_requests JOIN plan_books USING (book_id)
    WHERE reason = 'manual' AND name = 'parts'"""


def good() -> str:
    """A plan for the symbols of the store, as a model writes it."""
    plan: dict[str, Any] = copy.deepcopy(GOOD)
    for trigger in plan["triggers"]:
        trigger["symbol"] = {"S-0": SYMBOLS[0], "S-1": SYMBOLS[1]}[trigger["symbol"]]
    return json.dumps(plan)


def accounts(body: dict[str, Any]) -> dict[str, float] | None:
    """The account in the question of a request."""
    text = next(part for part in _texts(body) if part.startswith("{"))
    return json.loads(text)["book"]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def test_a_plan_of_a_model_is_recorded_counted_flagged_and_replayed_without_it(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([good(), "no plan at all", "nor this", "nor that"])
    with provider(lambda path, _: (200, completion(path, next(answers)))) as server:
        for name, value in {
            "MODEL": "openai:gpt-5.6",
            "API_KEY": KEY,
            "BASE_URL": server.url,
        }.items():
            monkeypatch.setenv(f"BACKTEST_LLM_{name}", value)
        book = added(store, "asked", *SYMBOLS, strategist="llm", replans=NO_JUDGE)
        assert replan(store, book) is not None
        (first,) = stored_plans(store, book)
        refreshed(store, without_last(2))
        request_replan(store, "asked", "ann")
        assert replan(store, find_book(store, "asked")) is not None
        assert len(server.requests) == 4
    before, now = (accounts(body) for _, _, body in server.requests[:2])
    assert before is None
    assert now is not None
    assert set(now) == {"day_return", "drawdown"}
    plans = stored_plans(store, book)
    assert (first.origin, first.model) == ("valid", "openai:gpt-5.6")
    (plan,) = plans
    assert (plan.sequence, plan.suppressed, plan.origin) == (1, 1, "valid")
    answered = "SELECT status, origin, origin_detail, transcript FROM replan_requests"
    fallen = rows(store, f"{answered} WHERE reason = 'manual'")[0]
    assert (fallen["status"], fallen["origin"]) == ("suppressed", "fallback")
    assert fallen["origin_detail"]
    used = rows(store, "SELECT model, calls, tokens FROM model_usage")
    assert used == [{"model": "openai:gpt-5.6", "calls": 4, "tokens": 4 * 1200}]
    for transcript in (plan.transcript, fallen["transcript"]):
        assert KEY.encode() not in store.artifacts.read_file(transcript_uri(str(transcript)))

    run_id = follow_book(store, book, "1D", SimulationConfig()).run_id
    run = get_run(store, run_id)
    assert run.results["within_training"] is True
    assert run.config["models"] == ["openai:gpt-5.6"]
    with store.database.begin() as connection:
        (recorded,) = recorded_runs(connection, [run_id])
    request = {"protocol": PROTOCOL, "artifacts": str(store.artifacts.root), "series": False}
    (again,) = respond({**request, "runs": [ReplayRequest.of(recorded).as_json()]})["runs"]
    assert (again["run_id"], again["fingerprint"]) == (str(run_id), recorded.fingerprint)

    execute_sql(store, "UPDATE backtest_runs SET completed_at = '2020-01-01Z'")
    retain(store, days=30)
    assert store.artifacts.has(transcript_uri(str(first.transcript)))


def test_a_walk_over_the_past_counts_each_call_before_it_is_made(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, int]] = []

    def respond(path: str, _: object) -> tuple[int, str]:
        (use,) = rows(store, "SELECT calls, tokens FROM model_usage")
        kept = len(list((store.artifacts.root / "transcripts").glob("*.json")))
        seen.append((use["calls"], use["tokens"], kept))
        return 200, completion(path, good())

    kept = len(list((store.artifacts.root / "transcripts").glob("*.json")))
    with provider(respond) as server:
        for name, value in {"MODEL": "openai:gpt-5.6", "API_KEY": KEY}.items():
            monkeypatch.setenv(f"BACKTEST_LLM_{name}", value)
        monkeypatch.setenv("BACKTEST_LLM_BASE_URL", server.url)
        start = stamp_of(int(market().ts.max())).date() - timedelta(days=7)
        book = added(store, "walked", *SYMBOLS, strategist="llm", replans=NO_JUDGE, start=start)
        assert replan(store, book) is not None
    assert len(seen) == 3
    for number, (calls, tokens, found) in enumerate(seen):
        assert (calls, found) == (number + 1, kept + number)
        assert tokens > number * 1200 + 8_000  # the most that this call can use
    assert rows(store, "SELECT calls, tokens FROM model_usage") == [{"calls": 3, "tokens": 3600}]


def test_a_walk_whose_budget_is_used_up_goes_on_on_another_day(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = stamp_of(int(market().ts.max())).date() - timedelta(days=9)
    days, most = 5, list[int]()  # of the store from then on; what each call can use

    def respond(path: str, _: object) -> tuple[int, str]:
        used = rows(store, "SELECT tokens FROM model_usage")[0]["tokens"]
        most.append(used - 1200 * len(most))
        return 200, completion(path, good())

    with provider(respond) as server:
        for name, value in {"MODEL": "openai:gpt-5.6", "API_KEY": KEY}.items():
            monkeypatch.setenv(f"BACKTEST_LLM_{name}", value)
        monkeypatch.setenv("BACKTEST_LLM_BASE_URL", server.url)
        whole = added(store, "whole", *SYMBOLS, strategist="llm", replans=NO_JUDGE, start=start)
        assert replan(store, whole) is not None
        assert len(server.requests) == days
        used = rows(store, "SELECT tokens FROM model_usage")[0]["tokens"]
        monkeypatch.setenv("BACKTEST_LLM_TOKENS_PER_DAY", str(used + max(most) + 1800))
        book = added(store, "parts", *SYMBOLS, strategist="llm", replans=NO_JUDGE, start=start)
        first = replan_now(store, "parts", "ann")
        assert "tokens is used up" in first["waits"]
        assert not first["suppressed"]
        (mine,) = rows(store, ASKED)
        assert (mine["status"], mine["requested_by"], mine["waits"]) == ("waiting", "ann", True)
        assert [run["run_id"] is not None for run in first["runs"]] == [True]
        asked = len(server.requests)
        assert days < asked < 2 * days
        (waiting,) = rows(store, WAITING)
        assert (waiting["reason"], waiting["waits"]) == ("initial_plan", True)
        assert "tokens is used up" in waiting["error"]
        assert waiting["retry_at"].time() == time.min
        again = replan(store, book)
        assert again is not None
        assert again.waits
        assert (again.n_new, again.suppressed) == (0, False)
        assert len(server.requests) == asked
        assert stored_plans(store, book)[-1].origin == "valid"
        monkeypatch.delenv("BACKTEST_LLM_TOKENS_PER_DAY")  # another day
        last = replan(store, book)
        assert last is not None
        assert not last.waits
        assert len(server.requests) == 2 * days
    assert rows(store, WAITING) == []
    (mine,) = rows(store, ASKED)
    assert (mine["status"], mine["requested_by"]) == ("suppressed", "ann")  # always the same plan
    one, other = stored_plans(store, whole), stored_plans(store, book)
    alike = ("plan_id", "replan_reasons", "suppressed", "valid_until", "asked_at")
    assert [[getattr(p, n) for n in alike] for p in one] == [
        [getattr(p, n) for n in alike] for p in other
    ]


def test_the_judge_hears_the_opinion_of_a_model_and_goes_on_without(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = added(store, "judged", replans=NO_JUDGE)
    assert replan(store, book) is not None
    data, logged = load_book(store, book), stored_plans(store, book)
    plans = [plan_from(row.plan) for row in logged]

    def heard(score_below: float) -> str:
        judge = JudgeSettings(
            score_below=score_below, day_loss_pct=100.0, idle_triggers=10_000, opinion=True
        )
        settings, config = ReplanSettings(judge=judge), planned_config(SimulationConfig())
        record = record_of(logged[-1])
        found = judged(store, book, data, record, plans, settings, config)
        return found.triggers[0].detail if found.triggers else ""

    score = float(heard(100.0).split()[1])  # no model is set
    assert heard(0.8 * score) == ""
    texts = iter(['{"score": 0, "reason": "It\\nturns."}', *["no JSON"] * 3])
    with provider(lambda path, _: (200, completion(path, next(texts)))) as server:
        for name, value in {"MODEL": "openai:gpt-5.6", "API_KEY": KEY}.items():
            monkeypatch.setenv(f"BACKTEST_LLM_{name}", value)
        monkeypatch.setenv("BACKTEST_LLM_BASE_URL", server.url)
        assert heard(0.8 * score).endswith("; opinion of the model 0.0: It turns.")
        assert heard(0.8 * score) == ""
    assert rows(store, "SELECT calls, tokens FROM model_usage") == [{"calls": 4, "tokens": 4800}]


def test_what_a_model_thinks_of_a_plan_is_kept_with_the_run_that_it_judged(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = {"score_below": 1.0, "day_loss_pct": 100.0, "idle_triggers": 10_000, "opinion": True}
    book = added(store, "judged", replans={"judge": judge})
    assert replan(store, book) is not None
    execute_sql(store, "UPDATE plans SET judged_at = NULL")
    answer = '{"score": 90, "reason": "It holds."}'
    with provider(lambda path, _: (200, completion(path, answer))) as server:
        for name, value in {"MODEL": "openai:gpt-5.6", "API_KEY": KEY}.items():
            monkeypatch.setenv(f"BACKTEST_LLM_{name}", value)
        monkeypatch.setenv("BACKTEST_LLM_BASE_URL", server.url)
        run = follow_book(store, book, "1D", SimulationConfig())
    assert run.judged == ()
    *before, last = rows(store, "SELECT opinion FROM plan_log ORDER BY replan_sequence")
    assert {row["opinion"] for row in before} == {None}
    uri = transcript_uri(last["opinion"])
    said = store.artifacts.read_file(uri)
    assert b"It holds." in said
    assert KEY.encode() not in said
    assert f"transcripts/{last['opinion']}.json" in bundle_files(store, run.run_id)
    execute_sql(store, "UPDATE backtest_runs SET completed_at = '2020-01-01Z'")
    retain(store, days=30)
    assert store.artifacts.has(uri)
