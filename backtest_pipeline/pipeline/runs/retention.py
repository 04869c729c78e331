"""Old results go: chosen first, then their artifacts, then their rows, each step for itself.

Whatever is interrupted, the next retention takes up: runs that were chosen are marked and seen by
nobody, a row goes only after its artifacts, and an artifact that no row names is swept.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from uuid import UUID

from backtest_pipeline.market.errors import ArtifactError, InvalidInput
from backtest_pipeline.pipeline.runs.summary import Summary
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.backend import MANIFEST, StoredFile
from backtest_pipeline.storage.postgres.removals import remove_alone
from backtest_pipeline.storage.run_tables import retention
from backtest_pipeline.storage.run_tables.run_search import require_runs
from backtest_pipeline.storage.run_tables.source_removal import (
    assets_of_source,
    capture_assets,
    delete_assets,
)

logger = logging.getLogger(__name__)

# Publishers wait while so many go, and no longer.
_FOLDERS_AT_ONCE = 20
_ARTIFACTS_AT_ONCE = 200
RETENTION_VERSION = 1
"""Raise it when other results are kept or go."""
_WRITTEN_LATELY = timedelta(hours=1)
_STEPS = 5


@dataclass(frozen=True)
class Removed:
    """Files of one kind that went."""

    files: int
    bytes: int


@dataclass(frozen=True)
class RetentionReport:
    """What a retention did, or would do.

    Attributes:
        cutoff: results that ended before it were old.
        dry_run: whether nothing was changed.
        rows: how many went, by kind: runs, portfolios, folds, jobs, snapshots, environments.
        files: what went of the artifacts, by the folder below their root.
        left: artifacts that could not be removed, and why; the next retention tries again.
    """

    cutoff: datetime
    dry_run: bool
    rows: Mapping[str, int]
    files: Mapping[str, Removed]
    left: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """Bytes of all files that went."""
        return sum(removed.bytes for removed in self.files.values())


@dataclass(frozen=True)
class _Artifact:
    """A file, or a directory with a manifest."""

    files: int
    bytes: int
    modified: datetime


@dataclass
class _Tally:
    """What has gone so far."""

    artifacts: Mapping[str, _Artifact]
    rows: Counter[str] = field(default_factory=lambda: Counter(runs=0))
    gone: set[str] = field(default_factory=set)
    left: dict[str, str] = field(default_factory=dict)

    def report(self, cutoff: datetime, *, dry_run: bool) -> RetentionReport:
        files: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for uri in self.gone & self.artifacts.keys():
            kind = uri.split("/")[0]
            files[kind] += self.artifacts[uri].files
            size[kind] += self.artifacts[uri].bytes
        removed = {kind: Removed(files[kind], size[kind]) for kind in sorted(files)}
        return RetentionReport(cutoff, dry_run, dict(self.rows), removed, self.left)


def retain(
    workspace: Workspace, *, days: float, dry_run: bool = False, now: datetime | None = None
) -> RetentionReport:
    """Remove what is older than so many days, and what nothing needs any more.

    Runs go that ended before, unless they are pinned, of a partition's last refresh, members of a
    portfolio that stays, or results of a job that has not ended. With them go portfolios that are
    not current, jobs that ended, snapshots, sources and environments that nothing stored was made
    from, and files that no row names and that were not written within the last hour. The ledger of
    trials and leaderboards stay.

    Args:
        workspace: the open store; told of each step.
        days: results that ended longer ago are old.
        dry_run: only find out what would go.
        now: the time; that of the clock where None.

    Raises:
        InvalidInput: for days that are not above 0.
    """
    if not days > 0:
        raise InvalidInput(f"results are kept for more than 0 days, not {days:g}")
    now = now or datetime.now(UTC)
    cutoff = now.astimezone(UTC) - timedelta(days=days)
    settled = now - _WRITTEN_LATELY
    tally = _Tally(_artifacts(workspace.artifacts.stored()))
    if dry_run:
        _rehearse(workspace, tally, cutoff, settled)
        return tally.report(cutoff, dry_run=True)
    workspace.progress("retention", 0, _STEPS)
    with workspace.database.begin() as connection:
        remove_alone(connection)
        retention.capture_aged(connection, cutoff)
    workspace.progress("retention", 1, _STEPS)
    _finish_captured(workspace, tally)
    workspace.progress("retention", 2, _STEPS)
    with workspace.database.begin() as connection:
        remove_alone(connection)
        tally.rows.update(retention.delete_aged(connection, cutoff))
    workspace.progress("retention", 3, _STEPS)
    _sweep(workspace, tally, settled)
    workspace.progress("retention", 4, _STEPS)
    workspace.artifacts.sweep()
    workspace.progress("retention", _STEPS, _STEPS)
    return tally.report(cutoff, dry_run=False)


def delete_runs(workspace: Workspace, run_ids: Sequence[UUID]) -> int:
    """Delete runs with all that is theirs, whatever their age; returns how many.

    Raises:
        RunNotFound: for a run that is not stored.
        InvalidInput: for a run that has to stay, and why; none is deleted then.
    """
    with workspace.database.begin() as connection:
        remove_alone(connection)
        require_runs(connection, run_ids)
        reasons = retention.reasons_to_keep(connection, run_ids)
        if reasons:
            named = "; ".join(f"run {run_id} {why}" for run_id, why in sorted(reasons.items()))
            raise InvalidInput(f"cannot be deleted: {named}; nothing was deleted")
        retention.capture(connection, run_ids)
    tally = _Tally({})
    _finish_captured(workspace, tally)
    if tally.left:
        raise ArtifactError("; ".join(tally.left.values()))
    return tally.rows["runs"]


def remove_source(workspace: Workspace, source: str) -> tuple[list[str], int]:
    """Take the invented assets of a source away, with all that was made of them.

    Runs go whatever holds them, portfolios and boards that have any of them, trials, signals,
    features and bars; files that nothing names any more go with the next retention.

    Returns:
        The symbols, sorted, and how many runs went.

    Raises:
        ArtifactError: for a folder that cannot be removed; called again it goes on from there.
    """
    with workspace.database.begin() as connection:
        remove_alone(connection)
        assets = assets_of_source(connection, source)
        capture_assets(connection, list(assets.values()))
    tally = _Tally({})
    _finish_captured(workspace, tally)
    if tally.left:
        raise ArtifactError("; ".join(tally.left.values()))
    with workspace.database.begin() as connection:
        remove_alone(connection)
        delete_assets(connection, assets)
    return sorted(assets), tally.rows["runs"]


def retention_summary(report: RetentionReport) -> Summary:
    """What a retention did, for the page of its asset."""
    return Summary(
        {
            "cutoff": report.cutoff.isoformat(),
            "dry_run": report.dry_run,
            **{f"{kind}_removed": n for kind, n in report.rows.items()},
            "files_removed": sum(removed.files for removed in report.files.values()),
            "bytes_removed": report.bytes,
            "artifacts_left": len(report.left),
        },
        {
            "files_by_kind": [
                {"kind": kind, "files": removed.files, "bytes": removed.bytes}
                for kind, removed in report.files.items()
            ],
            "left": [{"artifact": uri, "why": why} for uri, why in report.left.items()],
        },
    )


def _rehearse(workspace: Workspace, tally: _Tally, cutoff: datetime, settled: datetime) -> None:
    """Take all steps in one transaction that is undone, and remove nothing."""
    with workspace.database.begin() as connection:
        remove_alone(connection)
        before = connection.begin_nested()
        retention.capture_aged(connection, cutoff)
        folders = retention.captured_folders(connection)
        tally.gone |= {folder.uri for folder in folders if not folder.shared}
        tally.rows["runs"] = retention.delete_captured(connection, [f.uri for f in folders])
        tally.rows.update(retention.delete_aged(connection, cutoff))
        known = retention.referred_to(connection)
        before.rollback()
    tally.gone |= set(retention.unreferred(_old(tally, settled), known))


def _finish_captured(workspace: Workspace, tally: _Tally) -> None:
    """Remove the artifacts of captured runs, then the runs whose artifacts are gone."""
    last = ""
    while True:
        with workspace.database.begin() as connection:
            # Who publishes one of these runs at the same time has it whole: either its rows are
            # there before we look whether the directory is needed, or its files come after.
            remove_alone(connection)
            folders = retention.captured_folders(connection, last, _FOLDERS_AT_ONCE)
            if not folders:
                return
            gone = _removed(workspace, [f.uri for f in folders if not f.shared], tally)
            shared = [f.uri for f in folders if f.shared]
            tally.rows["runs"] += retention.delete_captured(connection, [*gone, *shared])
        last = folders[-1].uri


def _sweep(workspace: Workspace, tally: _Tally, settled: datetime) -> None:
    """Remove what no row names, looking again before each removal."""
    with workspace.database.begin() as connection:
        found = retention.unreferred(_old(tally, settled), retention.referred_to(connection))
    for i in range(0, len(found), _ARTIFACTS_AT_ONCE):
        with workspace.database.begin() as connection:
            remove_alone(connection)
            known = retention.referred_to(connection)
            still = retention.unreferred(found[i : i + _ARTIFACTS_AT_ONCE], known)
            _removed(workspace, still, tally)


def _removed(workspace: Workspace, uris: Iterable[str], tally: _Tally) -> list[str]:
    """Those of the artifacts that could be removed."""
    gone = []
    for uri in uris:
        try:
            workspace.artifacts.remove(uri)
        except ArtifactError as error:
            logger.warning("%s stays: %s", uri, error)
            tally.left[uri] = str(error)
        else:
            gone.append(uri)
    tally.gone |= set(gone)
    return gone


def _old(tally: _Tally, settled: datetime) -> list[str]:
    """Artifacts that are there still, and of which nothing was written lately."""
    return sorted(
        uri
        for uri, artifact in tally.artifacts.items()
        if uri not in tally.gone and uri not in tally.left and artifact.modified < settled
    )


def _artifacts(stored: Iterable[StoredFile]) -> dict[str, _Artifact]:
    """What this package has written, by uri: files, and directories with a manifest as one."""
    files = [file for file in stored if file.uri.split("/")[0] in retention.KINDS]
    folders = {
        str(PurePosixPath(file.uri).parent)
        for file in files
        if PurePosixPath(file.uri).name == MANIFEST
    }
    found: dict[str, _Artifact] = {}
    for file in files:
        parents = [str(parent) for parent in reversed(PurePosixPath(file.uri).parents)]
        uri = next((parent for parent in parents if parent in folders), file.uri)
        before = found.get(uri, _Artifact(0, 0, file.modified))
        found[uri] = _Artifact(
            before.files + 1, before.bytes + file.bytes, max(before.modified, file.modified)
        )
    return found
