"""The asset `retention`: deletes old results, and what Dagster has noted of old runs."""

import dagster as dg

from backtest_pipeline.defs.instance import output_of_runs
from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.pipeline.runs.log_retention import retain_log, retention_summary
from backtest_pipeline.pipeline.runs.retention import RETENTION_VERSION, retain
from backtest_pipeline.storage.settings import load_settings

_COLUMNS = table_schema(
    ("what", "text", "kind of row, or top-level folder of the artifact store"),
    ("rows", "bigint", "rows deleted"),
    ("files", "bigint", "files deleted"),
    ("bytes", "bigint", "bytes freed"),
)


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
    metadata={"dagster/column_schema": _COLUMNS},
    description="Deletes old results that are neither pinned nor needed by other results, with "
    "their files; the trial ledger and the leaderboards stay. Trims Dagster's log of old runs, but "
    "for how assets stand.",
)
def retention(config: RetentionConfig, store: WorkspaceResource) -> dg.MaterializeResult:
    settings = load_settings()
    days = config.days or settings.retention_days
    report = retain(store.workspace, days=days, dry_run=config.dry_run)
    log = retain_log(
        store.workspace,
        output_of_runs(settings),
        days=settings.retention_log_days,
        dry_run=config.dry_run,
    )
    return dg.MaterializeResult(metadata=of_summary(retention_summary(report, log)))
