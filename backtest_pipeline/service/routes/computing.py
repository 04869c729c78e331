"""Questions that are answered while the client waits, by the warm workers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from backtest_pipeline.pipeline.answers import (
    BacktestAnswer,
    OptimizeAnswer,
    PortfolioAnswer,
    WalkForwardAnswer,
)
from backtest_pipeline.pipeline.questions import (
    BacktestQuestion,
    OptimizeQuestion,
    PortfolioQuestion,
    WalkForwardQuestion,
)
from backtest_pipeline.service.authentication import Runner, User
from backtest_pipeline.service.pool import Pool, Work
from backtest_pipeline.service.problems import AUTHENTICATED, COMPUTING, documented
from backtest_pipeline.service.refusals import require_json

router = APIRouter(
    prefix="/backtest",
    tags=["computing"],
    dependencies=[Depends(require_json)],
    responses=documented(*AUTHENTICATED, *COMPUTING),
)
_Asked = BacktestQuestion | WalkForwardQuestion | PortfolioQuestion | OptimizeQuestion


@router.post("/run", response_model=BacktestAnswer)
async def run(question: BacktestQuestion, user: Runner, request: Request) -> Response:
    """Backtest one strategy on one asset, and store the run."""
    return await _answered(question, user, request)


@router.post("/walkforward", response_model=WalkForwardAnswer)
async def walkforward(question: WalkForwardQuestion, user: Runner, request: Request) -> Response:
    """Choose parameters on training windows, test each choice on the bars after, store all."""
    return await _answered(question, user, request, slow=True)


@router.post("/portfolio", response_model=PortfolioAnswer)
async def portfolio(question: PortfolioQuestion, user: Runner, request: Request) -> Response:
    """Trade one strategy on several assets, spread capital over them, and store all."""
    return await _answered(question, user, request, slow=True)


@router.post("/optimize", response_model=OptimizeAnswer)
async def optimize(question: OptimizeQuestion, user: Runner, request: Request) -> Response:
    """Trade every combination of a strategy's parameters, and name the best."""
    return await _answered(question, user, request, slow=True)


async def _answered(
    question: _Asked, user: User, request: Request, *, slow: bool = False
) -> Response:
    pool: Pool = request.app.state.pool
    answer = await pool.ask(Work(question.model_dump_json(), user.name, slow))
    return Response(answer, media_type="application/json")
