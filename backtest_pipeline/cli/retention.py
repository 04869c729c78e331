"""`backtest-pipeline retention`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backtest_pipeline.cli.console import console, print_json, rows_table, say
from backtest_pipeline.cli.options import AsJson
from backtest_pipeline.cli.store import open_store
from backtest_pipeline.report.json_values import plain

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.runs.log_retention import LogReport
    from backtest_pipeline.pipeline.runs.retention import RetentionReport

app = typer.Typer()


@app.command()
def retention(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, only list.")] = False,
    days: Annotated[
        float | None, typer.Option(help="Days to keep; default: BACKTEST_RETENTION_DAYS.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete old results that are not pinned and not needed, files that no row refers to, and
    Dagster's log of old runs."""
    from backtest_pipeline.defs.instance import output_of_runs
    from backtest_pipeline.pipeline.runs.log_retention import retain_log
    from backtest_pipeline.pipeline.runs.retention import require_days, retain
    from backtest_pipeline.storage.settings import load_settings

    settings = load_settings()
    kept = settings.retention_days if days is None else days
    require_days(kept)
    with open_store() as workspace:
        report = retain(workspace, days=kept, dry_run=dry_run)
        folder = output_of_runs(settings)
        log_days = settings.retention_log_days
        log = retain_log(workspace, folder, days=log_days, dry_run=dry_run)
    if not dry_run:
        from backtest_pipeline.defs.assets.retention import retention_rows
        from backtest_pipeline.launch import report_stored

        report_stored("retention", retention_rows(report, log))
    if as_json:
        print_json(
            {
                **plain(vars(report)),
                "files": {kind: vars(removed) for kind, removed in report.files.items()},
                "log": plain(vars(log)),
            }
        )
    else:
        _show(report, log)


def _show(report: RetentionReport, log: LogReport) -> None:
    removed = {**report.rows, **log.rows}
    rows = [{"what": kind.replace("_", " "), "rows": n} for kind, n in removed.items() if n]
    files = [{"what": kind, **vars(removed)} for kind, removed in report.files.items()]
    deleted = "to delete" if report.dry_run else "deleted"
    say(
        f"Results that ended before {report.cutoff:%F %T} UTC are old, and Dagster's log of runs"
        f" that ended before {log.cutoff:%F %T} UTC."
    )
    if rows:
        console.print(rows_table(f"Rows {deleted}", rows))
    if files:
        console.print(rows_table(f"Files {deleted}", files))
    if not rows and not files:
        say(f"nothing {deleted}")
    for uri, why in report.left.items():
        say(f"{uri} could not be deleted, the next retention tries again: {why}")
