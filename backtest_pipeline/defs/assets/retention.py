"""The asset `retention`: deletes old results."""

import dagster as dg

from backtest_pipeline.defs.assets.stages import OWNERS
from backtest_pipeline.defs.assets.table_schemas import RETENTION
from backtest_pipeline.defs.metadata import of_summary
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.pipeline.runs.retention import RETENTION_VERSION, retain, retention_summary
from backtest_pipeline.storage.settings import load_settings


class RetentionConfig(dg.Config):
    """How old results may get, in days; BACKTEST_RETENTION_DAYS applies where `days` is 0."""

    days: float = 0
    dry_run: bool = False


@dg.asset(
    deps=["backtests"],
    group_name="research",
    kinds={"postgres", "parquet"},
    owners=OWNERS,
    code_version=f"retention {RETENTION_VERSION}",
    metadata={"dagster/column_schema": RETENTION},
    description="Deletes old results that are neither pinned nor needed by other results, with "
    "their files; the trial ledger and the leaderboards stay.",
)
def retention(config: RetentionConfig, store: WorkspaceResource) -> dg.MaterializeResult:
    days = config.days or load_settings().retention_days
    report = retain(store.workspace, days=days, dry_run=config.dry_run)
    return dg.MaterializeResult(metadata=of_summary(retention_summary(report)))
