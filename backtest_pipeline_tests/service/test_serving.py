"""A server process under load, with dying workers, and told to stop."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx2
import psutil
import pytest

from backtest_pipeline_tests.service.conftest import (
    QUESTION,
    Server,
    Store,
    bearing,
    serving,
)

CLIENTS = 200
# Every question of it is a new one, and takes long enough to be killed in the middle.
SLOW = {
    "symbol": "AAA",
    "strategy": "ema_crossover",
    "params": {"fast": [*range(2, 60)], "slow": [*range(60, 100)]},
}

BRIEFER = {**SLOW, "params": {"fast": [*range(2, 20)], "slow": [*range(20, 40)]}}


@pytest.fixture(scope="module")
def key(store: Store) -> dict[str, str]:
    return bearing(store.key())


def post(server: Server, key: dict[str, str], route: str, question: dict[str, Any]) -> Any:
    return httpx2.post(f"{server.url}/backtest/{route}", json=question, headers=key, timeout=120)


def workers(server: Server) -> list[psutil.Process]:
    """The processes that compute: the youngest generation."""
    everybody = psutil.Process(server.process.pid).children(recursive=True)
    return [p for p in everybody if p.parent() and p.parent().pid != server.process.pid]  # pyright: ignore[reportOptionalMemberAccess]


def busy(server: Server) -> psutil.Process:
    """The worker that computes; waits until there is one."""
    while True:
        for process in workers(server):
            with suppress(psutil.NoSuchProcess):
                before = sum(process.cpu_times()[:2])
                time.sleep(0.05)
                if _is_busy(server) and sum(process.cpu_times()[:2]) - before > 0.02:
                    return process


def _is_busy(server: Server) -> bool:
    return "backtest_pool_busy 0.0" not in httpx2.get(f"{server.url}/metrics").text


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
        async with httpx2.AsyncClient(headers=key, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(ask(client, n) for n in range(CLIENTS)))

    answers = asyncio.run(everybody())
    assert Counter(status for status, _ in answers) == {200: CLIENTS}
    # Each got the answer to its own question, and not to another one.
    assert len({fees for _, fees in answers}) == 5
    assert len({(n % 5, fees) for n, (_, fees) in enumerate(answers)}) == 5


def test_a_worker_that_is_killed_ends_its_request_and_no_other(
    server: Server, key: dict[str, str]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(post, server, key, "optimize", SLOW)
        busy(server).send_signal(signal.SIGKILL)
        others = [post(server, key, "run", QUESTION) for _ in range(3)]
        died = slow.result()
    assert (died.status_code, died.json()["code"]) == (500, "RUN_ENGINE_ERROR")
    assert [other.status_code for other in others] == [200] * 3


def test_workers_that_are_killed_while_they_wait_are_replaced(
    server: Server, key: dict[str, str]
) -> None:
    for process in workers(server):
        process.send_signal(signal.SIGKILL)
    answers = [post(server, key, "run", QUESTION) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4


def test_what_takes_long_leaves_a_worker_to_quick_questions(
    server: Server, key: dict[str, str]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        slow = [
            pool.submit(post, server, key, "optimize", {**BRIEFER, "symbol": symbol})
            for symbol in ("BBB", "CCC")
        ]
        busy(server)
        assert post(server, key, "run", QUESTION).status_code == 200
        assert not all(one.done() for one in slow)
    assert [one.result().status_code for one in slow] == [200] * 2


def test_what_takes_too_long_is_ended_and_what_is_too_much_refused(
    store: Store, key: dict[str, str]
) -> None:
    strict = {
        "BACKTEST_SERVICE_TIMEOUT_S": "2",
        "BACKTEST_SERVICE_WAITING": "0",
        "BACKTEST_OPTIMIZER_MAX_COMBINATIONS": "1000000",
    }
    with serving(store, "--workers", "1", environment=strict) as server:
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(post, server, key, "optimize", {**SLOW, "direction": "long"})
            while not _is_busy(server):
                time.sleep(0.02)
            refused = post(server, key, "run", QUESTION)
        ended = slow.result()
        assert (ended.status_code, ended.json()["code"]) == (504, "RUN_TIMEOUT")
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert refused.headers["Retry-After"] == "5"
        assert post(server, key, "run", QUESTION).status_code == 200

        # Nobody who computes outlives a server that is killed.
        family = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive


def test_a_server_that_is_told_to_stop_finishes_what_it_does_and_leaves_nobody_behind(
    store: Store, key: dict[str, str]
) -> None:
    with serving(store, "--workers", "1") as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(post, server, key, "optimize", {**BRIEFER, "direction": "long"})
            busy(server)
            server.process.send_signal(signal.SIGTERM)
            assert under_way.result().status_code == 200
        assert server.process.wait(30) == 0
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
        log = server.log.read_text()
    assert "Traceback" not in log
    assert key["Authorization"].partition(" ")[2] not in log
    assert store.database.conninfo not in log
