"""The asset `retention`: deletes old results, and what Dagster has noted of old runs."""

from collections.abc import Iterator

import dagster as dg

from backtest_pipeline.defs import stored_events
from backtest_pipeline.defs.instance import output_of_runs
from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.defs.stored_events import StoredRows
from backtest_pipeline.pipeline.runs.log_retention import LogReport, retain_log, retention_summary
from backtest_pipeline.pipeline.runs.retention import RETENTION_VERSION, RetentionReport, retain
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
    io_manager_key="stages",
    output_required=False,  # a dry run has none
    group_name="research",
    kinds={"postgres", "parquet"},
    owners=OWNERS,
    code_version=f"retention {RETENTION_VERSION}",
    metadata={"dagster/column_schema": _COLUMNS},
    description="Deletes old results that are neither pinned nor needed by other results, with "
    "their files; the trial ledger and the leaderboards stay. Trims Dagster's log of old runs, but "
    "for how assets stand. "
    "Materialize with dry_run first; pin the runs that have to stay.",
)
def retention(
    context: dg.AssetExecutionContext, config: RetentionConfig, store: WorkspaceResource
) -> Iterator[dg.MaterializeResult]:
    settings = load_settings()
    days = config.days or settings.retention_days
    report = retain(store.workspace, days=days, dry_run=config.dry_run)
    log = retain_log(
        store.workspace,
        output_of_runs(settings),
        days=settings.retention_log_days,
        dry_run=config.dry_run,
    )
    if config.dry_run:  # nothing was done that could be shown as done
        about = of_summary(retention_summary(report, log))
        stored_events.observe(context.get_step_execution_context(), about, {})
    else:
        yield stored_events.result(retention_rows(report, log))


def retention_rows(report: RetentionReport, log: LogReport) -> StoredRows:
    """What a retention has removed; each one is a new version."""
    removed = sum(report.rows.values()) + sum(log.rows.values())
    about = of_summary(retention_summary(report, log))
    return StoredRows(None, report.cutoff.isoformat(), removed, about)
