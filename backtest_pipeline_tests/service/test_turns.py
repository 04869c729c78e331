"""Each user gets a worker in turn, and nobody fills the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from backtest_pipeline.service.problems import Problem
from backtest_pipeline.service.turns import Turns


async def settled() -> None:
    """Return when all tasks have gone on as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Served:
    """Turns on workers that are named by number, and in which order users were served."""

    def __init__(self, size: int = 1, most_waiting: int = 100) -> None:
        self.turns: Turns[int] = Turns(size, most_waiting)
        self.turns.add(range(size))
        self.order: list[str] = []
        self.held: dict[str, tuple[int, bool]] = {}

    async def request(self, user: str, name: str, *, slow: bool = False) -> None:
        worker = await self.turns.take(user, slow=slow)
        self.order.append(name)
        self.held[name] = worker, slow

    async def end(self, name: str) -> None:
        worker, slow = self.held.pop(name)
        self.turns.done(slow=slow)
        self.turns.add([worker])
        await settled()

    async def sent(self, user: str, name: str, *, slow: bool = False) -> asyncio.Task[None]:
        task = asyncio.create_task(self.request(user, name, slow=slow))
        await settled()
        return task


def run(what: Coroutine[Any, Any, None]) -> None:
    asyncio.run(what)


def test_users_take_turns_however_many_requests_one_sends() -> None:
    async def check() -> None:
        served = Served()
        for n in range(5):
            await served.sent("ann", f"a{n}")
        await served.sent("bob", "b0")
        await served.sent("cy", "c0")
        await served.sent("bob", "b1")
        for _ in range(7):
            await served.end(served.order[-1])
        assert served.order == ["a0", "a1", "b0", "c0", "a2", "b1", "a3", "a4"]
        assert served.turns.waiting == 0

    run(check())


def test_slow_requests_leave_a_worker_to_quick_ones_of_anybody() -> None:
    async def check() -> None:
        served = Served(size=2)
        for name in ("s0", "s1"):
            await served.sent("ann", name, slow=True)
        await served.sent("ann", "q0")
        assert served.order == ["s0", "q0"]
        await served.end("q0")
        assert served.order == ["s0", "q0"]
        await served.end("s0")
        assert served.order == ["s0", "q0", "s1"]

    run(check())


def test_a_full_queue_refuses_whoever_has_the_most_in_it() -> None:
    async def check() -> None:
        served = Served(most_waiting=3)
        ann = [await served.sent("ann", f"a{n}") for n in range(4)]
        over = await served.sent("ann", "a4")
        with pytest.raises(Problem) as caught:
            await over
        assert caught.value.code == "RATE_LIMITED"
        await served.sent("bob", "b0")
        with pytest.raises(Problem):
            await ann[3]
        await served.end("a0")
        await served.end("a1")
        assert served.order == ["a0", "a1", "b0"]

    run(check())


def test_a_request_that_is_cancelled_leaves_its_place_and_its_worker() -> None:
    async def check() -> None:
        served = Served()
        await served.sent("ann", "a0")
        waiting, other = await served.sent("ann", "a1"), await served.sent("bob", "b0")
        waiting.cancel()
        await settled()
        assert served.turns.waiting == 1
        # Cancelled just when its turn has come: the worker goes to the next.
        last = asyncio.create_task(served.request("cy", "c0"))
        await settled()
        worker, slow = served.held.pop("a0")
        served.turns.done(slow=slow)
        served.turns.add([worker])
        other.cancel()
        await settled()
        assert served.order == ["a0", "c0"]
        await last

    run(check())


def test_a_client_that_leaves_while_it_waits_takes_no_worker_with_it() -> None:
    async def check() -> None:
        served = Served(most_waiting=2)
        await served.sent("ann", "a0")
        leaving = await served.sent("bob", "b0")
        staying = await served.sent("cy", "c0")
        leaving.cancel()
        served.held.clear()
        served.turns.done(slow=False)
        served.turns.add([0])  # before the one who left is forgotten
        await settled()
        assert leaving.cancelled()
        assert staying.done()
        assert served.order == ["a0", "c0"]
        assert (served.turns.busy, served.turns.waiting) == (1, 0)
        gone = await served.sent("ann", "a1")
        gone.cancel()
        await served.sent("bob", "b1")
        await served.sent("bob", "b2")
        assert (served.turns.busy, served.turns.waiting) == (1, 2)

    run(check())


def test_one_who_has_left_is_not_refused_in_place_of_another() -> None:
    async def check() -> None:
        served = Served(most_waiting=1)
        await served.sent("ann", "a0")
        leaving = await served.sent("ann", "a1")
        leaving.cancel()
        newcomers = [asyncio.create_task(served.request("bob", f"b{n}")) for n in range(2)]
        await settled()
        assert newcomers[0].done() is False
        assert isinstance(newcomers[1].exception(), Problem)
        await served.end("a0")
        assert served.order == ["a0", "b0"]

    run(check())
