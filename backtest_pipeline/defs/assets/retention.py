"""How long results are kept."""

import dagster as dg

from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.pipeline.runs.retention import RETENTION_VERSION, retain, retention_summary
from backtest_pipeline.storage.settings import load_settings

_COLUMNS = table_schema(
    ("what", "text", "kind of row, or folder of files below the root of the artifacts"),
    ("rows", "bigint", "rows that went"),
    ("files", "bigint", "files that went"),
    ("bytes", "bigint", "what they held"),
)


class RetentionConfig(dg.Config):
    """What is old; BACKTEST_RETENTION_DAYS where `days` is 0."""

    days: float = 0
    dry_run: bool = False


@dg.asset(
    deps=["backtests"],
    group_name="research",
    kinds={"postgres", "parquet"},
    owners=OWNERS,
    code_version=f"retention {RETENTION_VERSION}",
    metadata={"dagster/column_schema": _COLUMNS},
    description="Old results that nobody has pinned and nothing needs go, with their files; the "
    "ledger of trials and the leaderboards stay.",
)
def retention(config: RetentionConfig, store: WorkspaceResource) -> dg.MaterializeResult:
    days = config.days or load_settings().retention_days
    report = retain(store.workspace, days=days, dry_run=config.dry_run)
    return dg.MaterializeResult(metadata=of_summary(retention_summary(report)))
