"""The asset `restatements`: features that changed after use, and the effect on stored results."""

import dagster as dg

from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.defs.stored_events import StoredRows, result
from backtest_pipeline.pipeline.audits import restatements as history
from backtest_pipeline.pipeline.versions import RESTATEMENTS_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.provenance import combined

_COLUMNS = table_schema(
    ("restatement_id", "uuid", "hash of the partition and both versions"),
    ("id", "integer", "asset"),
    ("tf", "text", "timeframe"),
    ("version_before", "text", "dataset version of the features that runs had used"),
    ("version_after", "text", "dataset version of the features that replaced them"),
    ("code_changed", "boolean", "whether the code that computed them changed"),
    ("bars_changed", "bigint", "bars in both versions with a different value"),
    ("bars_added", "bigint", "bars added at or before the last bar of the old version"),
    ("bars_removed", "bigint", "bars missing from the new version"),
    ("first_ts", "timestamptz", "first bar that differs"),
    ("last_ts", "timestamptz", "last bar that differs"),
    ("columns", "jsonb", "largest relative change by column"),
)


@dg.asset(
    deps=["backtests"],
    io_manager_key="stages",
    group_name="research",
    kinds={"postgres"},
    owners=OWNERS,
    code_version=RESTATEMENTS_CODE,
    metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "restatements"},
    description="Features that changed after runs had used them: which bars differ, and by how "
    "much each run's equity changed. "
    "Materialize after a source was corrected; then recompute what it names.",
)
def restatements(store: WorkspaceResource) -> dg.MaterializeResult:
    return result(restatements_rows(store.workspace, history.watch_history(store.workspace)))


def restatements_rows(workspace: Workspace, watched: history.Watched) -> StoredRows:
    """What is stored of restatements after a check of the history."""
    stored = history.restatements(workspace)
    version = combined(*(str(sorted(row.items())) for row in stored))
    about = of_summary(history.restatements_summary(workspace, watched))
    return StoredRows(None, version, len(stored), about)
