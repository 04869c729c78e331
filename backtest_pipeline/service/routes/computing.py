"""Synchronous computations by the warm workers."""

from __future__ import annotations

import asyncio

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response

from backtest_pipeline.pipeline.execution import declare, look_up
from backtest_pipeline.pipeline.results import (
    CrossSectionResult,
    Declaration,
    PortfolioResult,
    RunResult,
    SweepResult,
    WalkForwardResult,
)
from backtest_pipeline.pipeline.specs import (
    CrossSectionSpec,
    ExecutableSpec,
    PortfolioSpec,
    RunSpec,
    StrategySpec,
    SweepSpec,
    WalkForwardSpec,
)
from backtest_pipeline.service.auth.authentication import Runner, User
from backtest_pipeline.service.pool import Pool, Work
from backtest_pipeline.service.problem_handlers import require_json
from backtest_pipeline.service.problems import AUTHENTICATED, COMPUTING, documented
from backtest_pipeline.service.routes.store import Store

_CLIENT_LEFT = 499  # for the log: nobody reads this response

router = APIRouter(
    prefix="/backtest",
    tags=["computing"],
    dependencies=[Depends(require_json)],
    responses=documented(*AUTHENTICATED, *COMPUTING),
)


@router.post("/run", response_model=RunResult)
async def run(spec: RunSpec, user: Runner, request: Request) -> Response:
    """Backtest one strategy on one asset, and store the run."""
    return await _executed(spec, user, request)


@router.post("/walkforward", response_model=WalkForwardResult)
async def walkforward(spec: WalkForwardSpec, user: Runner, request: Request) -> Response:
    """Choose parameters on training windows, trade each choice on the test window that follows."""
    return await _executed(spec, user, request, slow=True)


@router.post("/walkforward/declare")
def declare_walk_forward(
    spec: WalkForwardSpec, store: Store, _user: Runner, request: Request
) -> Declaration:
    """Declare a walk-forward before the strategy's first trial on the symbol and timeframe."""
    return declare(store, request.app.state.settings, spec)


@router.post("/portfolio", response_model=PortfolioResult)
async def portfolio(spec: PortfolioSpec, user: Runner, request: Request) -> Response:
    """Backtest one strategy on several assets as a portfolio, and store it."""
    return await _executed(spec, user, request, slow=True)


@router.post("/optimize", response_model=SweepResult)
async def optimize(spec: SweepSpec, user: Runner, request: Request) -> Response:
    """Backtest every combination of a strategy's parameters, and rank them."""
    return await _executed(spec, user, request, slow=True)


@router.post("/cross-section", response_model=CrossSectionResult)
async def cross_section(spec: CrossSectionSpec, user: Runner, request: Request) -> Response:
    """Rank stored assets at each rebalance, trade the ends of the ranking, and store the run."""
    return await _computed(spec, user, request, slow=True)


async def _executed(
    spec: StrategySpec, user: User, request: Request, *, slow: bool = False
) -> Response:
    if (stored := await _looked_up(spec, user, request)) is not None:
        return stored
    return await _computed(spec, user, request, slow=slow)


async def _computed(spec: ExecutableSpec, user: User, request: Request, *, slow: bool) -> Response:
    pool: Pool = request.app.state.pool
    computing = asyncio.create_task(pool.execute(Work(spec.model_dump_json(), user.name, slow)))
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait((computing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not computing.done():
            return Response(status_code=_CLIENT_LEFT)
        return Response(await computing, media_type="application/json")
    finally:
        for task in (computing, leaving):
            task.cancel()


async def _looked_up(spec: StrategySpec, user: User, request: Request) -> Response | None:
    """The response where the result is stored and current: it needs no worker, and no turn."""
    state = request.app.state

    def look() -> bytes | None:
        result = look_up(state.workspace, state.settings, spec, user.name)
        return None if result is None else result.model_dump_json().encode()

    stored = await anyio.to_thread.run_sync(look, limiter=state.look_ups)
    return None if stored is None else Response(stored, media_type="application/json")


async def _left(request: Request) -> None:
    """Return when the client has hung up; its body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
