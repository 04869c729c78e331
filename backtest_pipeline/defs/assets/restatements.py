"""Whether history stays what it was: restated features, and what they did to results."""

import dagster as dg

from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.pipeline.audits.restatements import restatements_summary, watch_history
from backtest_pipeline.pipeline.versions import RESTATEMENTS_CODE

_COLUMNS = table_schema(
    ("restatement_id", "uuid", "follows from the partition and both versions"),
    ("id", "integer", "asset"),
    ("tf", "text", "timeframe"),
    ("version_before", "text", "dataset version of the features that runs had used"),
    ("version_after", "text", "of those that took their place"),
    ("code_changed", "boolean", "whether other code made them"),
    ("bars_changed", "bigint", "bars of both with another value"),
    ("bars_added", "bigint", "late bars, at or before the last known one"),
    ("bars_removed", "bigint", "bars that are gone"),
    ("first_ts", "timestamptz", "first bar that differs"),
    ("last_ts", "timestamptz", "last bar that differs"),
    ("columns", "jsonb", "largest relative change by column"),
)


@dg.asset(
    deps=["backtests"],
    group_name="research",
    kinds={"postgres"},
    owners=OWNERS,
    code_version=RESTATEMENTS_CODE,
    metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "restatements"},
    description="Features that were rewritten after runs had used them: which bars differ, and how "
    "much each run's equity moved by it.",
)
def restatements(store: WorkspaceResource) -> dg.MaterializeResult:
    watched = watch_history(store.workspace)
    return dg.MaterializeResult(metadata=of_summary(restatements_summary(store.workspace, watched)))
