"""Liveness and readiness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.service.problems import Problem, documented

router = APIRouter(tags=["health"])
_WITHIN_S = 3.0
# Separate threads: readiness must be checked even when all others are busy.
_threads = anyio.CapacityLimiter(4)


class Alive(BaseModel):
    """The process is up."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Store and artifacts are available."""

    status: Literal["ready"] = "ready"


@router.get("/healthz")
async def healthz() -> Alive:
    """Liveness: the process responds; nothing else is checked."""
    return Alive()


@router.get("/readyz", responses=documented("STORE_UNAVAILABLE"))
async def readyz(request: Request) -> Ready:
    """Readiness: the store and the artifacts respond; 503 names the one that does not."""
    workspace: Workspace = request.app.state.workspace
    checks = {"store": _ping_store, "artifacts": _ping_artifacts}
    failures: dict[str, str] = {}

    async def run_check(name: str, check: Callable[[Workspace], None]) -> None:
        with anyio.move_on_after(_WITHIN_S) as scope:
            try:
                await anyio.to_thread.run_sync(
                    check, workspace, abandon_on_cancel=True, limiter=_threads
                )
            except BacktestError as error:
                failures[name] = f"failed ({type(error).__name__})"
        if scope.cancelled_caught:
            failures[name] = f"did not respond within {_WITHIN_S:g} s"

    async with anyio.create_task_group() as group:
        for name, check in checks.items():
            group.start_soon(run_check, name, check)
    if failures:
        named = " and ".join(f"{name} {what}" for name, what in sorted(failures.items()))
        raise Problem(
            "STORE_UNAVAILABLE",
            f"not ready: {named}",
            {"Retry-After": "5"},
            [{"where": name, "message": what} for name, what in sorted(failures.items())],
        )
    return Ready()


def _ping_store(workspace: Workspace) -> None:
    workspace.database.ping()


def _ping_artifacts(workspace: Workspace) -> None:
    workspace.artifacts.ping()
