"""Specs that are executed while the client waits, by the warm workers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from backtest_pipeline.pipeline.results import (
    PortfolioResult,
    RunResult,
    SweepResult,
    WalkForwardResult,
)
from backtest_pipeline.pipeline.specs import (
    ExecutableSpec,
    PortfolioSpec,
    RunSpec,
    SweepSpec,
    WalkForwardSpec,
)
from backtest_pipeline.service.authentication import Runner, User
from backtest_pipeline.service.pool import Pool, Work
from backtest_pipeline.service.problem_handlers import require_json
from backtest_pipeline.service.problems import AUTHENTICATED, COMPUTING, documented

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
    """Choose parameters on training windows, test each choice on the bars after, store all."""
    return await _executed(spec, user, request, slow=True)


@router.post("/portfolio", response_model=PortfolioResult)
async def portfolio(spec: PortfolioSpec, user: Runner, request: Request) -> Response:
    """Trade one strategy on several assets, spread capital over them, and store all."""
    return await _executed(spec, user, request, slow=True)


@router.post("/optimize", response_model=SweepResult)
async def optimize(spec: SweepSpec, user: Runner, request: Request) -> Response:
    """Trade every combination of a strategy's parameters, and name the best."""
    return await _executed(spec, user, request, slow=True)


async def _executed(
    spec: ExecutableSpec, user: User, request: Request, *, slow: bool = False
) -> Response:
    pool: Pool = request.app.state.pool
    result = await pool.execute(Work(spec.model_dump_json(), user.name, slow))
    return Response(result, media_type="application/json")
