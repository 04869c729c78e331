"""Blocked entries of runs, and the plans that runs followed.

Functions on one run raise RunNotFound where it is not stored or is being deleted.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.plan_tables.plan_history import list_plans
from backtest_pipeline.storage.postgres.pages import Page
from backtest_pipeline.storage.run_tables import block_events
from backtest_pipeline.storage.run_tables.block_events import BlockFilter
from backtest_pipeline.storage.run_tables.run_search import require_runs


def run_blocks(
    workspace: Workspace, run_id: UUID, *, limit: int = 100, after: str | None = None
) -> Page[dict[str, Any]]:
    """The blocked entries of a run by number, as rows of `block_events`.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    with workspace.database.begin() as connection:
        require_runs(connection, [run_id])
        return block_events.list_blocks(connection, run_id, limit, after)


def run_causes(workspace: Workspace, run_id: UUID, by: str = "reason") -> list[dict[str, Any]]:
    """The blocked entries of a run counted; see `storage.run_tables.block_events.group_blocks`.

    Raises:
        UnknownName: for something that they cannot be counted by.
    """
    if by not in block_events.GROUPS:
        raise UnknownName("group of blocked entries", by, block_events.GROUPS)
    with workspace.database.begin() as connection:
        require_runs(connection, [run_id])
        return block_events.group_blocks(connection, run_id, by)


def blocks_by_run(
    workspace: Workspace,
    filters: BlockFilter | None = None,
    *,
    limit: int = 50,
    after: str | None = None,
) -> Page[dict[str, Any]]:
    """Blocked entries counted by run; see `storage.run_tables.block_events.count_blocks`.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    with workspace.database.begin() as connection:
        return block_events.count_blocks(connection, filters or BlockFilter(), limit, after)


def run_plans(workspace: Workspace, run_id: UUID) -> list[dict[str, Any]]:
    """The plans that a run followed, in order, as rows of `plan_log`."""
    with workspace.database.begin() as connection:
        require_runs(connection, [run_id])
        return list_plans(connection, run_id)
