"""Questions over HTTP: answers that are stored, and problems that say what is wrong."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from backtest_pipeline.pipeline.versions import probe_code
from backtest_pipeline.storage.tables.look_ahead import record_verdicts
from backtest_pipeline_tests.service.conftest import OTHER, QUESTION, Store, bearing
from backtest_pipeline_tests.service.problems import told
from backtest_pipeline_tests.sql import execute_sql


def test_a_backtest_is_answered_and_found_again(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    answer = client.post("/backtest/run", json=QUESTION, headers=runner)
    assert answer.status_code == 200, answer.text
    run = answer.json()
    assert (run["symbol"], run["n_bars"]) == ("AAA", 120)
    again = client.post("/backtest/run", json=QUESTION, headers=runner).json()
    assert again == run

    address = f"/backtests/{run['run_id']}"
    detail = client.get(address, headers=viewer).json()
    assert detail["requests"][0]["requested_by"] == "the-runner"
    assert detail["metrics"] == run["metrics"]
    assert client.get(f"{address}/summary", headers=viewer).json()["metrics"] == run["metrics"]
    listed = client.get("/backtests", params={"requested_by": "the-runner"}, headers=viewer).json()
    (row,) = (row for row in listed["rows"] if row["run_id"] == run["run_id"])
    assert row["synthetic"] is detail["synthetic"] is run["synthetic"]

    trades = client.get(f"{address}/trades", params={"limit": 2}, headers=viewer).json()
    rest = client.get(f"{address}/trades", params={"after": trades["next"]}, headers=viewer).json()
    numbers = [trade["trade_no"] for trade in trades["rows"] + rest["rows"]]
    assert numbers == list(range(1, int(run["metrics"]["trade_count"]) + 1))

    equity = client.get(f"{address}/equity", headers=viewer).json()["columns"]
    assert len(equity["ts"]) == len(equity["equity"]) == len(equity["benchmark"]) == 120
    series = client.get(f"{address}/metrics/timeseries", headers=viewer).json()["columns"]
    assert min(series["drawdown"]) == pytest.approx(run["metrics"]["max_drawdown"])
    rolling = client.get(f"{address}/metrics/rolling?window=30", headers=viewer).json()["columns"]
    assert len(rolling["day"]) == len(rolling["sharpe"])


def test_a_walk_forward_is_declared_over_http(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    walk = {"symbol": "AAA", "strategy": "bollinger_revert", "train_days": 60, "test_days": 10}
    address = "/backtest/walkforward/declare"
    answer = client.post(address, json=walk, headers=runner)
    assert answer.status_code == 200, answer.text
    declared = answer.json()
    assert (declared["symbol"], declared["strategy"]) == ("AAA", "bollinger_revert")
    assert client.post(address, json=walk, headers=runner).json() == declared
    found = client.post("/backtest/walkforward", json=walk, headers=runner).json()
    assert found["declared_at"] == declared["declared_at"]
    late = client.post(address, json={**walk, "test_days": 12}, headers=runner)
    assert "cannot be declared any more" in told(late, "BAD_PARAMS")["detail"]
    assert client.post(address, json=walk, headers=viewer).status_code == 403


def test_a_run_is_a_page_without_scripts(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    run_id = client.post("/backtest/run", json=QUESTION, headers=runner).json()["run_id"]
    page = client.get(f"/backtests/{run_id}/report", headers=viewer)
    assert page.headers["Content-Type"].startswith("text/html")
    assert "script" not in page.headers["Content-Security-Policy"]
    assert "ema_crossover" in page.text
    assert "<script" not in page.text
    assert page.text.count("<svg") > 10
    assert 'data-metric="sharpe"' in page.text


def test_files_of_a_run_are_those_that_its_manifest_lists(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    run_id = client.post("/backtest/run", json=QUESTION, headers=runner).json()["run_id"]
    address = f"/backtests/{run_id}/artifacts"
    found = client.get(f"{address}/equity.parquet", headers=viewer)
    assert found.status_code == 200
    assert found.content[:4] == found.content[-4:] == b"PAR1"
    for name in ("manifest.json", "..%2Fmanifest.json", "%2e%2e", "equity.parquet%00", "C:%5Cx"):
        refused = client.get(f"{address}/{name}", headers=viewer)
        assert refused.status_code in (404, 422), name
        assert refused.json()["code"] in ("NOT_FOUND", "BAD_PARAMS")


def test_runs_are_kept_compared_and_let_go(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    ids = [
        client.post(
            "/backtest/run", json={**QUESTION, "costs": {"fee_bps": fee}}, headers=runner
        ).json()["run_id"]
        for fee in (1, 50)
    ]
    both = client.post("/backtests/compare", json={"run_ids": ids}, headers=viewer).json()
    assert [one["name"] for one in both["config"]] == ["costs.fee_bps"]
    told(
        client.post("/backtests/compare", json={"run_ids": ids[:1] * 2}, headers=viewer),
        "BAD_PARAMS",
    )
    pin = f"/backtests/{ids[0]}/pin"
    assert client.put(pin, json={"note": "for the talk"}, headers=runner).status_code == 204
    detail = client.get(f"/backtests/{ids[0]}", headers=viewer).json()
    assert (detail["pin"]["pinned_by"], detail["pin"]["note"]) == ("the-runner", "for the talk")
    told(client.delete(f"/backtests/{ids[0]}", headers=runner), "CONFLICT")
    assert client.delete(pin, headers=runner).status_code == 204
    assert client.get(f"/backtests/{ids[0]}", headers=viewer).json()["pin"] is None
    assert client.delete(f"/backtests/{ids[0]}", headers=runner).status_code == 204
    told(client.get(f"/backtests/{ids[0]}", headers=viewer), "RUN_NOT_FOUND")


def test_searches_portfolios_and_walk_forwards_are_answered(
    client: TestClient, runner: dict[str, str]
) -> None:
    strategy = {"strategy": "ema_crossover"}
    search = {**strategy, "symbol": "AAA", "params": {"fast": [2, 3], "slow": [6, 8]}}
    found = client.post("/backtest/optimize", json=search, headers=runner)
    assert found.status_code == 200, found.text
    assert found.json()["n_combinations"] == 4
    portfolio = {**strategy, "symbols": ["AAA", "BBB"], "params": {"fast": 3, "slow": 8}}
    found = client.post("/backtest/portfolio", json=portfolio, headers=runner)
    address = f"/portfolios/{found.json()['portfolio_id']}"
    assert client.get(address, headers=runner).json() == found.json()
    page = client.get(f"{address}/report", headers=runner)
    assert "style-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert "What diversification gained" in page.text
    assert client.put(f"{address}/pin", json={}, headers=runner).status_code == 204
    assert client.delete(f"{address}/pin", headers=runner).status_code == 204
    rules = 'kind = "cross_section"\nname = "up"\nscore = "close"\ncount = 1\nrebalance = 2'
    same = {"rules": rules, "symbols": ["AAA", "BBB"]}
    ranked = client.post("/backtest/cross-section", json=same, headers=runner)
    told(ranked, "BAD_PARAMS")  # the bars of these symbols are the same
    assert "60 all scores equal" in ranked.json()["detail"]
    refused = client.post("/backtest/cross-section", json={"rules": "kind ="}, headers=runner)
    assert refused.json()["code"] == "BAD_PARAMS", refused.text
    nobody = f"/portfolios/{uuid.uuid4()}"
    assert client.get(nobody, headers=runner).json()["code"] == "RUN_NOT_FOUND"
    assert found.status_code == 200, found.text
    assert [member["symbol"] for member in found.json()["members"]] == ["AAA", "BBB"]
    walk = {**search, "train_days": 40, "test_days": 20}
    found = client.post("/backtest/walkforward", json=walk, headers=runner)
    assert found.status_code == 200, found.text
    assert len(found.json()["folds"]) >= 3


def test_a_cross_section_is_answered_with_its_files_and_pages(
    client: TestClient, runner: dict[str, str], viewer: dict[str, str]
) -> None:
    for symbol in (universe := ["AAA", OTHER]):
        made = client.post("/backtest/run", json={**QUESTION, "symbol": symbol}, headers=runner)
        assert made.status_code == 200, made.text
    rules = 'kind = "cross_section"\nname = "up"\nscore = "close"\ncount = 1\nrebalance = 2'
    asked = {"rules": rules, "symbols": universe}
    answer = client.post("/backtest/cross-section", json=asked, headers=runner)
    assert answer.status_code == 200, answer.text
    told_run = answer.json()
    assert (told_run["symbols"], told_run["information"]["mean_ic"] is None) == (universe, False)
    assert client.post("/backtest/cross-section", json=asked, headers=runner).json() == told_run

    address = f"/backtests/{told_run['run_id']}"
    for page in ("", "/summary", "/equity", "/metrics/timeseries", "/report", "/blocks", "/plans"):
        found = client.get(f"{address}{page}", headers=viewer)
        assert found.status_code == 200, found.text
    detail = client.get(address, headers=viewer).json()
    assert (detail["symbol"], detail["metrics"]) == ("AAA+DDD", told_run["metrics"])
    trades = client.get(f"{address}/trades", headers=viewer).json()["rows"]
    assert {trade["symbol"] for trade in trades} == set(universe)
    assert {trade["is_part"] for trade in trades} <= {True, False}
    listed = client.get("/backtests", params={"requested_by": "the-runner"}, headers=viewer).json()
    assert told_run["run_id"] in [row["run_id"] for row in listed["rows"]]
    for name in ("daily_ic", "daily_signals", "daily_weights"):
        file = client.get(f"{address}/artifacts/{name}.parquet", headers=viewer)
        table = pq.read_table(io.BytesIO(file.content))
        assert "ts" in table.column_names
        assert table.num_rows >= 60


@pytest.mark.parametrize(
    ("route", "changed", "code"),
    [
        ("run", {"symbol": "NO"}, "BAD_SYMBOL"),
        ("run", {"symbol": "../../etc/passwd"}, "BAD_SYMBOL"),
        ("run", {"symbol": "A'; DROP TABLE backtest_runs; --"}, "BAD_SYMBOL"),
        ("run", {"symbol": "A\x00"}, "BAD_SYMBOL"),
        ("run", {"strategy": "nothing"}, "UNKNOWN_STRATEGY"),
        ("run", {"strategy": "ema\x00"}, "UNKNOWN_STRATEGY"),
        ("run", {"params": {"fast": 8, "slow": 3}}, "BAD_PARAMS"),
        ("run", {"params": {"fast": 10**400, "slow": 3}}, "BAD_PARAMS"),
        ("run", {"timeframe": "7X"}, "BAD_PARAMS"),
        ("run", {"start": "2024-03-01", "end": "2024-02-01"}, "BAD_RANGE"),
        ("run", {"start": "no day"}, "BAD_RANGE"),
        ("run", {"start": "2030-01-01"}, "NOT_ENOUGH_BARS"),
        ("run", {"unknown": 1}, "BAD_PARAMS"),
        ("run", {"costs": {"fee_bps": 1e308}}, "BAD_PARAMS"),
        ("run", {"benchmark": "NO"}, "BAD_PARAMS"),
        *(("run", {"stops": {"stop_loss": text}}, "BAD_PARAMS")
          for text in ("shift(low, -1) / close", "close > open", "", "0/0")),
        ("run", {"sizing": {"mode": "expression", "fraction": "close > open"}}, "BAD_PARAMS"),
        ("optimize", {"params": {"fast": [9], "slow": [3]}}, "EMPTY_GRID"),
        ("optimize", {"params": {"fast": [*range(2, 60)], "slow": [60, *range(70, 90)]}},
         "GRID_TOO_LARGE"),
        ("portfolio", {"symbol": None, "symbols": ["AAA"]}, "BAD_SYMBOLS"),
        ("portfolio", {"symbol": None, "symbols": ["AAA", "AAA"]}, "BAD_SYMBOLS"),
        ("portfolio", {"symbol": None, "symbols": ["AAA", "BBB"],
                       "weights": {"AAA": 1e308, "BBB": 1e308}}, "BAD_PARAMS"),
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_told_what_is_wrong(
    client: TestClient, runner: dict[str, str], route: str, changed: dict[str, Any], code: str
) -> None:
    question = {name: v for name, v in {**QUESTION, **changed}.items() if v is not None}
    told(client.post(f"/backtest/{route}", json=question, headers=runner), code)


def test_rules_are_given_in_place_of_a_strategy(client: TestClient, runner: dict[str, str]) -> None:
    rules = """name = "up"
long_entry = "close > mean(close, n)"
long_exit = "close < mean(close, n)"
[params]
n = { default = 5, grid = [5, 8] }
"""
    asked = {"symbol": "AAA", "rules": rules}
    for route, more in (
        ("run", {}),
        ("optimize", {}),
        ("walkforward", {"train_days": 40, "test_days": 20}),
        ("portfolio", {"symbol": None, "symbols": ["AAA", "BBB"]}),
    ):
        body = {name: value for name, value in {**asked, **more}.items() if value is not None}
        answer = client.post(f"/backtest/{route}", json=body, headers=runner)
        assert answer.status_code == 200, answer.text
        assert answer.json()["strategy"] == "up"
    job = {"spec": {"kind": "run", **asked}}
    answer = client.post("/backtest/jobs", json=job, headers=runner)
    assert (answer.status_code, answer.json()["strategy"]) == (202, "up")

    whole = {"symbol": "AAA", "strategy": "ema_crossover"}  # the spec itself, without `spec`
    answer = client.post("/backtest/jobs", json=whole, headers=runner)
    assert told(answer, "BAD_PARAMS")["errors"][0]["where"] == "body.spec"

    wrong = {"stops": {"stop_loss": [1], "take_proft": 0.1}, "sizing": {"mode": "fixd"}}
    answer = client.post("/backtest/run", json={**whole, **wrong}, headers=runner)
    problem = told(answer, "BAD_PARAMS")
    assert {part["where"]: part["message"] for part in problem["errors"]} == {
        "body.sizing": "mode must be one of 'fixed', 'equal', 'volatility', 'atr', 'expression', "
        "not 'fixd'",
        "body.stops.stop_loss": "must be a number or text",
        "body.stops.take_proft": "is no field here; did you mean take_profit or atr_period?",
    }
    assert problem["detail"].endswith("(and 2 more)")
    nested = {"spec": {"kind": "run", **whole, "sizing": {"mode": "fixed", "fraction": "all"}}}
    answer = client.post("/backtest/jobs", json=nested, headers=runner)
    (part,) = told(answer, "BAD_PARAMS")["errors"]
    assert part == {"where": "body.spec.sizing.fraction", "message": "must be a number"}

    unreadable = rules.replace("close > mean", "close > maen")
    answer = client.post("/backtest/run", json={**asked, "rules": unreadable}, headers=runner)
    (part,) = told(answer, "BAD_PARAMS")["errors"]
    assert part["where"] == "body.rules"
    assert part["message"].startswith("rules:2: long_entry, line 1, column 9: ")
    taken = rules.replace('"up"', '"rsi_mean_revert"')
    answer = client.post("/backtest/run", json={**asked, "rules": taken}, headers=runner)
    assert "another strategy: shipped" in told(answer, "UNKNOWN_STRATEGY")["detail"]


def test_a_strategy_that_looks_ahead_is_refused(
    store: Store, client: TestClient, runner: dict[str, str]
) -> None:
    verdict = {
        "code_version": probe_code("macd_crossover"),
        "params_hash": "of others",
        "strategy": "macd_crossover",
        "params": {},
        "leak": "macd_crossover looks ahead",
    }
    with store.database.begin() as connection:
        record_verdicts(connection, [verdict])
    try:
        asked = {**QUESTION, "strategy": "macd_crossover", "params": {}}
        short = {"train_days": 40, "test_days": 20}
        for route, more in (("run", {}), ("optimize", {}), ("walkforward", short)):
            answer = client.post(f"/backtest/{route}", json={**asked, **more}, headers=runner)
            assert told(answer, "LOOKS_AHEAD")["detail"] == "macd_crossover looks ahead"
    finally:
        execute_sql(store.database, "DELETE FROM strategy_probes")


def test_what_is_not_there_is_told_as_such(client: TestClient, viewer: dict[str, str]) -> None:
    nothing = "00000000-0000-0000-0000-000000000000"
    told(client.get(f"/backtests/{nothing}", headers=viewer), "RUN_NOT_FOUND")
    told(client.get(f"/backtests/{nothing}/report", headers=viewer), "RUN_NOT_FOUND")
    told(client.get(f"/backtest/jobs/{nothing}", headers=viewer), "JOB_NOT_FOUND")
    told(client.get(f"/backtest/jobs/{nothing}/events", headers=viewer), "JOB_NOT_FOUND")
    told(client.get("/backtests/no-id", headers=viewer), "BAD_PARAMS")
    told(client.get("/no/such/address", headers=viewer), "NOT_FOUND")
    told(client.patch("/backtests", headers=viewer), "METHOD_NOT_ALLOWED")


def test_a_body_that_cannot_be_read_is_told_why(client: TestClient, runner: dict[str, str]) -> None:
    as_json = {**runner, "Content-Type": "application/json"}
    told(client.post("/backtest/run", content="{", headers=as_json), "BAD_REQUEST")
    told(client.post("/backtest/run", content=b"\xff\xfe", headers=as_json), "BAD_REQUEST")
    told(client.post("/backtest/run", content="[" * 60_000, headers=as_json), "BAD_REQUEST")
    as_text = {**runner, "Content-Type": "text/plain"}
    told(client.post("/backtest/run", content="{}", headers=as_text), "UNSUPPORTED_MEDIA_TYPE")
    large = b'{"symbol": "' + b"A" * 70_000 + b'"}'
    told(client.post("/backtest/run", content=large, headers=as_json), "PAYLOAD_TOO_LARGE")
    in_parts = (large[at : at + 1000] for at in range(0, len(large), 1000))
    told(client.post("/backtest/run", content=in_parts, headers=as_json), "PAYLOAD_TOO_LARGE")


def test_a_request_keeps_its_id_where_that_is_sane(client: TestClient) -> None:
    named = client.get("/healthz", headers={"X-Request-ID": "trace-7.b_2"})
    assert named.headers["X-Request-ID"] == "trace-7.b_2"
    for strange in ("", "a b", "a" * 65, "<script>", "../x"):
        given = client.get("/healthz", headers={"X-Request-ID": strange})
        assert given.headers["X-Request-ID"] not in ("", strange)


def test_answers_keep_browsers_careful(client: TestClient, viewer: dict[str, str]) -> None:
    headers = client.get("/backtests", headers=viewer).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "access-control-allow-origin" not in headers
    other = client.get("/backtests", headers={**viewer, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_key_that_asks_too_often_is_told_when_it_may_again(
    client: TestClient, store: Store
) -> None:
    key = bearing(store.key("viewer", rate=2))
    remaining = [
        client.get("/backtests?limit=1", headers=key).headers["RateLimit"] for _ in range(2)
    ]
    assert [text.split(";")[1] for text in remaining] == ["r=1", "r=0"]
    answer = client.get("/backtests?limit=1", headers=key)
    told(answer, "RATE_LIMITED")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    other = bearing(store.key("viewer", rate=2))
    assert client.get("/backtests?limit=1", headers=other).status_code == 200
