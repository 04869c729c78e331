"""A worker says that it is ready as long as its scheduler has it."""

from __future__ import annotations

import ast
import asyncio

from dask import config
from distributed import Scheduler, Worker
from distributed.core import Status
from tornado.httpclient import AsyncHTTPClient

from backtest_pipeline.pipeline.pools.dask_programs import scheduler_program

ROUTES = "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES"


async def asked(worker: Worker, page: str) -> tuple[int, bytes]:
    address = f"http://127.0.0.1:{worker.http_server.port}{page}"
    response = await AsyncHTTPClient().fetch(address, raise_error=False)
    return response.code, response.body


def test_a_worker_is_ready_while_it_is_registered() -> None:
    routes = ast.literal_eval(scheduler_program("127.0.0.1", 0)[1][ROUTES])

    async def look() -> list[tuple[int, bytes]]:
        address = "127.0.0.1:0"
        async with (
            Scheduler(host="127.0.0.1", port=0, dashboard_address=address) as scheduler,
            Worker(scheduler.address, dashboard_address=address) as worker,
        ):
            seen = [await asked(worker, "/health"), await asked(worker, "/ready")]
            worker.status = Status.closing_gracefully
            seen.append(await asked(worker, "/ready"))
            worker.status = Status.running
            return seen

    with config.set({"distributed.worker.http.routes": routes}):
        healthy, ready, leaving = asyncio.run(look())
    assert healthy == (200, b"ok")
    assert ready == (200, b"running\n")
    assert leaving == (503, b"closing_gracefully\n")
