"""The asset `restatements`: features that changed after use, and the effect on stored results."""

import dagster as dg

from backtest_pipeline.defs.assets.stages import OWNERS
from backtest_pipeline.defs.assets.table_schemas import RESTATEMENTS
from backtest_pipeline.defs.metadata import of_summary
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.pipeline.audits.restatements import restatements_summary, watch_history
from backtest_pipeline.pipeline.versions import RESTATEMENTS_CODE


@dg.asset(
    deps=["backtests"],
    group_name="research",
    kinds={"postgres"},
    owners=OWNERS,
    code_version=RESTATEMENTS_CODE,
    metadata={"dagster/column_schema": RESTATEMENTS, "dagster/table_name": "restatements"},
    description="Features that changed after runs had used them: which bars differ, and by how "
    "much each run's equity changed.",
)
def restatements(store: WorkspaceResource) -> dg.MaterializeResult:
    watched = watch_history(store.workspace)
    return dg.MaterializeResult(metadata=of_summary(restatements_summary(store.workspace, watched)))
