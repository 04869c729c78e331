"""A server under load, with dying workers, and told to stop."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from starlette.testclient import TestClient

from backtest_pipeline.market.errors import AlreadyRunning
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.session_lock import SERVICE_LOCK, SessionLock
from backtest_pipeline_tests.service.conftest import (
    QUESTION,
    Server,
    Store,
    app_on,
    bearing,
    serving,
)
from backtest_pipeline_tests.waiting import gate_for, until

CLIENTS = 200
# What is asked about this symbol waits at a gate, wherever a test holds one.
BEHIND = {**QUESTION, "symbol": "BBB"}
SEARCH = {**BEHIND, "params": {"fast": [3, 5], "slow": [8, 13]}}
LIMIT_S = 300

two_workers = pytest.mark.skipif(
    (os.cpu_count() or 1) < 2, reason="there is a worker for each core, and this needs two"
)


_numbers = itertools.count(1)


def new(question: dict[str, Any] = QUESTION) -> dict[str, Any]:
    """A question that nobody has asked before, so that a worker has to compute it."""
    return {**question, "costs": {"fee_bps": next(_numbers) / 16}}


@pytest.fixture(scope="module")
def key(store: Store) -> dict[str, str]:
    return bearing(store.key())


def post(server: Server, key: dict[str, str], route: str, question: dict[str, Any]) -> Any:
    address = f"{server.url}/backtest/{route}"
    return httpx2.post(address, json=question, headers=key, timeout=LIMIT_S)


def workers(server: Server) -> list[psutil.Process]:
    """The processes that compute: the youngest generation."""
    return [p for p in server.family if p.ppid() != server.process.pid]


@contextmanager
def one_worker(store: Store, key: dict[str, str], **service: Any) -> Iterator[TestClient]:
    """The application with one worker, and nobody may wait for it."""
    app = app_on(store, service_waiting=0, **service)
    with TestClient(app, base_url="http://localhost", headers=key) as client:
        yield client


def test_two_hundred_clients_at_once_all_get_their_answers(
    server: Server, key: dict[str, str]
) -> None:
    async def ask(client: httpx2.AsyncClient, fee: int) -> tuple[int, float]:
        question = {**QUESTION, "costs": {"fee_bps": fee % 5}}
        answer = await client.post(f"{server.url}/backtest/run", json=question)
        body = answer.json()
        return answer.status_code, body.get("metrics", {}).get("fees_paid", -1.0)

    async def everybody() -> list[tuple[int, float]]:
        limits = httpx2.Limits(max_connections=CLIENTS)
        async with httpx2.AsyncClient(headers=key, timeout=LIMIT_S, limits=limits) as client:
            return await asyncio.gather(*(ask(client, n) for n in range(CLIENTS)))

    answers = asyncio.run(everybody())
    assert Counter(status for status, _ in answers) == {200: CLIENTS}
    # Each got the answer to its own question, and not to another one.
    assert len({fees for _, fees in answers}) == 5
    assert len({(n % 5, fees) for n, (_, fees) in enumerate(answers)}) == 5


@two_workers
def test_a_worker_that_is_killed_ends_its_request_and_no_other(
    store: Store, server: Server, key: dict[str, str]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        with gate_for(store.database, "BBB") as gate:
            held_up = [pool.submit(post, server, key, "run", new(BEHIND)) for _ in range(2)]
            gate.hold_up(2)
            workers(server)[0].send_signal(signal.SIGKILL)
            others = [post(server, key, "run", new()) for _ in range(3)]
        died, lived = sorted((one.result() for one in held_up), key=lambda r: -r.status_code)
    assert (died.status_code, died.json()["code"]) == (500, "RUN_ENGINE_ERROR")
    assert lived.status_code == 200
    assert [other.status_code for other in others] == [200] * 3


def test_workers_that_are_killed_while_they_wait_are_replaced(
    server: Server, key: dict[str, str]
) -> None:
    for process in workers(server):
        process.send_signal(signal.SIGKILL)
    answers = [post(server, key, "run", new()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4


@two_workers
def test_what_takes_long_leaves_a_worker_to_quick_questions(
    store: Store, server: Server, key: dict[str, str]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        with gate_for(store.database, "BBB") as gate:
            slow = [pool.submit(post, server, key, "optimize", SEARCH) for _ in range(2)]
            gate.hold_up()
            assert post(server, key, "run", new()).status_code == 200
            assert not any(one.done() for one in slow)
        assert [one.result().status_code for one in slow] == [200] * 2


def test_what_finds_no_worker_is_refused_where_nobody_may_wait(
    store: Store, key: dict[str, str]
) -> None:
    with one_worker(store, key) as client, ThreadPoolExecutor(1) as pool:
        with gate_for(store.database, "BBB") as gate:
            slow = pool.submit(client.post, "/backtest/optimize", json=SEARCH)
            gate.hold_up()
            refused = client.post("/backtest/run", json=new())
        assert slow.result().status_code == 200
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert refused.headers["Retry-After"] == "5"
        assert client.post("/backtest/run", json=new()).status_code == 200


def test_a_stored_result_needs_no_worker(store: Store, key: dict[str, str]) -> None:
    several = {**QUESTION, "symbols": ["AAA", "CCC"]}
    del several["symbol"]
    with one_worker(store, key) as client, ThreadPoolExecutor(1) as pool:
        stored = client.post("/backtest/run", json=QUESTION)
        portfolio = client.post("/backtest/portfolio", json=several)
        with gate_for(store.database, "BBB") as gate:
            slow = pool.submit(client.post, "/backtest/optimize", json=SEARCH)
            gate.hold_up()
            again = client.post("/backtest/run", json=QUESTION)
            assert (again.status_code, again.json()) == (200, stored.json())
            again = client.post("/backtest/portfolio", json=several)
            assert (again.status_code, again.json()) == (200, portfolio.json())
        assert slow.result().status_code == 200


def test_what_takes_too_long_is_ended_and_its_worker_replaced(
    store: Store, key: dict[str, str]
) -> None:
    with one_worker(store, key, service_timeout_s=3) as client:
        with gate_for(store.database, "BBB"):
            ended = client.post("/backtest/optimize", json=SEARCH)
        assert (ended.status_code, ended.json()["code"]) == (504, "RUN_TIMEOUT")
        statuses: list[int] = []

        def answered() -> bool:
            statuses.append(client.post("/backtest/run", json=new()).status_code)
            return statuses[-1] == 200

        until(answered)
        # On a busy machine, the first answers of another worker may take too long as well.
        assert set(statuses) <= {200, 504}


@pytest.fixture(scope="module")
def lone(store: Store) -> Iterator[Server]:
    """A server with one worker; the last test that uses it ends it."""
    with serving(store, "--workers", "1") as server:
        yield server


def test_work_of_a_client_that_hung_up_is_cancelled(
    store: Store, lone: Server, key: dict[str, str]
) -> None:
    headers = {**key, "Content-Type": "application/json"}
    with gate_for(store.database, "BBB") as gate:
        leaving = HTTPConnection(lone.url.removeprefix("http://"))
        leaving.request("POST", "/backtest/optimize", json.dumps(SEARCH), headers)
        gate.hold_up()
        leaving.close()
        # Its only worker is free again, though what it computed would still wait.
        assert post(lone, key, "run", new()).status_code == 200
        until(lambda: "POST /backtest/optimize 499 " in lone.log.read_text())


def test_a_user_who_sends_many_requests_does_not_keep_others_waiting(
    store: Store, lone: Server, key: dict[str, str]
) -> None:
    server, other = lone, bearing(store.key(name="other"))
    before = len(server.log.read_text())
    with ThreadPoolExecutor(5) as pool:
        with gate_for(store.database, "BBB") as gate:
            sent = [pool.submit(post, server, key, "run", new(BEHIND))]
            gate.hold_up()
            many = [new(BEHIND) for _ in range(3)]
            sent += [pool.submit(post, server, key, "run", one) for one in many]
            until(lambda: _waiting(server) == 3)
            sent.append(pool.submit(post, server, other, "run", new()))
            until(lambda: _waiting(server) == 4)
        assert {one.result().status_code for one in sent} == {200}
    until(lambda: len(_answered(server, before)) == 5)  # a line is written after its answer is sent
    assert _answered(server, before).index("other") <= 2


def _answered(server: Server, since: int) -> list[str]:
    """The users whose backtests were answered after so much of the log, in order."""
    return re.findall(r"POST /backtest/\w+ 200 for (\S+) in", server.log.read_text()[since:])


def _waiting(server: Server) -> int:
    """Requests that wait for a worker, as the service counts them."""
    metrics = httpx2.get(f"{server.url}/metrics", timeout=LIMIT_S).text
    (count,) = re.findall(r"^backtest_pool_waiting (\S+)$", metrics, re.MULTILINE)
    return int(float(count))


def test_nobody_who_computes_outlives_a_server_that_is_killed(
    store: Store, key: dict[str, str]
) -> None:
    with serving(store, "--workers", "1") as server, ThreadPoolExecutor(1) as pool:
        with gate_for(store.database, "BBB") as gate:
            cut = pool.submit(post, server, key, "run", new(BEHIND))
            gate.hold_up()
            family = server.family
            server.process.kill()
            _, alive = psutil.wait_procs(family, timeout=LIMIT_S)
        assert not alive
        assert isinstance(cut.exception(), httpx2.TransportError)


def test_a_server_that_is_told_to_stop_finishes_what_it_does_and_leaves_nobody_behind(
    store: Store, lone: Server, key: dict[str, str]
) -> None:
    family = lone.family
    with ThreadPoolExecutor(1) as pool:
        with gate_for(store.database, "BBB") as gate:
            under_way = pool.submit(post, lone, key, "optimize", SEARCH)
            gate.hold_up()
            lone.process.send_signal(signal.SIGTERM)
            until(lambda: "Shutting down" in lone.log.read_text())
        assert under_way.result().status_code == 200
    assert lone.process.wait(LIMIT_S) == 0
    _, alive = psutil.wait_procs(family, timeout=LIMIT_S)
    assert not alive
    log = lone.log.read_text()
    assert "Traceback" not in log
    assert key["Authorization"].partition(" ")[2] not in log
    assert store.database.conninfo not in log


def test_whoever_needs_the_store_alone_is_kept_out_by_any_number_of_services(
    database: Database, tmp_path: Path, key: dict[str, str]
) -> None:
    own = Store(database, tmp_path)  # other tests serve the shared one
    with one_worker(own, key), one_worker(own, key), pytest.raises(AlreadyRunning):
        SessionLock(database, SERVICE_LOCK)
    with (
        closing(SessionLock(database, SERVICE_LOCK)),
        pytest.raises(AlreadyRunning, match="a restore is under way"),
        one_worker(own, key),
    ):
        pass
