"""What is open while the service runs, as handlers ask for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from backtest_pipeline.pipeline.workspace import Workspace


def _workspace(request: Request) -> Workspace:
    return request.app.state.workspace


Store = Annotated[Workspace, Depends(_workspace)]
