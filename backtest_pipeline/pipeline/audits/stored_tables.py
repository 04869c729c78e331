"""Checks of stored rows: keys, references and bounds."""

from __future__ import annotations

from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.tables.table_checks import CHECKED, OF_EXTERNAL, violations

__all__ = ["CHECKED", "check_dataset"]


@retried
def check_dataset(workspace: Workspace, dataset: str) -> dict[str, int]:
    """Number of rows that break each rule of a dataset."""
    if workspace.external is not None:
        dataset = OF_EXTERNAL.get(dataset, dataset)
    with workspace.database.begin() as connection:
        return violations(connection, dataset)
