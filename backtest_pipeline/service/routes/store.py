"""The open store, as a dependency of handlers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from backtest_pipeline.pipeline.workspace import Workspace


def _workspace(request: Request) -> Workspace:
    return request.app.state.workspace


Store = Annotated[Workspace, Depends(_workspace)]
