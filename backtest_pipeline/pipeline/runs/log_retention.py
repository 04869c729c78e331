"""Retention of what Dagster keeps: its log in the database, and the output of its processes."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from backtest_pipeline.pipeline.runs.retention import RetentionReport, require_days
from backtest_pipeline.pipeline.runs.summary import Summary
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.dagster_log import logged_runs, trim_log

_WRITTEN_LATELY_S = 3600.0


@dataclass(frozen=True)
class LogReport:
    """What was trimmed, or would be: rows by kind, and folders with the output of runs."""

    cutoff: datetime
    rows: dict[str, int]
    folders: int


@retried
def retain_log(
    workspace: Workspace,
    folder: Path,
    *,
    days: float,
    dry_run: bool = False,
    now: datetime | None = None,
) -> LogReport:
    """Trim Dagster's log of runs that ended more than `days` ago, as `storage.dagster_log` says.

    Args:
        workspace: the open store.
        folder: Dagster's `storage` folder, in which each run has one of its name; those of runs
            without a log are removed. It need not exist.
        days: runs that ended longer ago are old.
        dry_run: only report what would be removed.
        now: the current time; the system clock's where None.

    Raises:
        InvalidInput: for `days` not above 0.
    """
    require_days(days)
    cutoff = (now or datetime.now(UTC)) - timedelta(days=days)
    with workspace.database.begin() as connection:
        before = connection.begin_nested()
        rows = trim_log(connection, cutoff)
        known = logged_runs(connection)
        if dry_run:
            before.rollback()
        else:
            before.commit()
    doomed = [path for path in _folders_of_runs(folder) if path.name not in known]
    for path in () if dry_run else doomed:
        shutil.rmtree(path, ignore_errors=True)  # what is left goes with the next retention
    return LogReport(cutoff, {kind: n for kind, n in rows.items() if n}, len(doomed))


def retention_summary(report: RetentionReport, log: LogReport) -> Summary:
    """What a retention removed, as metadata of its Dagster asset."""
    return Summary(
        {
            "cutoff": report.cutoff.isoformat(),
            "dry_run": report.dry_run,
            **{f"{kind}_removed": n for kind, n in {**report.rows, **log.rows}.items()},
            "files_removed": sum(removed.files for removed in report.files.values()),
            "bytes_removed": report.bytes,
            "artifacts_left": len(report.left),
            "log_cutoff": log.cutoff.isoformat(),
            "log_folders_removed": log.folders,
        },
        {
            "files_by_kind": [
                {"kind": kind, "files": removed.files, "bytes": removed.bytes}
                for kind, removed in report.files.items()
            ],
            "left": [{"artifact": uri, "why": why} for uri, why in report.left.items()],
        },
    )


def _folders_of_runs(folder: Path) -> list[Path]:
    """Folders named by the id of a run that were not written to within the last hour."""
    if not folder.is_dir():
        return []
    too_young = time.time() - _WRITTEN_LATELY_S
    return [
        path
        for path in folder.iterdir()
        if _is_run_id(path.name) and path.is_dir() and path.stat().st_mtime < too_young
    ]


def _is_run_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
