"""Whether stored data is sound."""

from __future__ import annotations

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.checks import CHECKED, violations

__all__ = ["CHECKED", "check_dataset"]


def check_dataset(workspace: Workspace, dataset: str) -> dict[str, int]:
    """Rows that break each rule of a dataset."""
    with workspace.database.begin() as connection:
        return violations(connection, dataset)
