"""Retention: delete old results in separate steps: mark runs, remove artifacts, delete rows.

After an interruption the next retention continues: marked runs are hidden from all readers, a row
is deleted only after its artifacts, and artifacts that no row names are swept.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from uuid import UUID

from backtest_pipeline.market.errors import ArtifactError, InvalidInput
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.backend import MANIFEST, StoredFile
from backtest_pipeline.storage.postgres.removals import lock_for_removal, nobody_writing
from backtest_pipeline.storage.run_tables import retention
from backtest_pipeline.storage.run_tables.run_search import require_own_runs, require_runs
from backtest_pipeline.storage.source_removal import (
    assets_of_source,
    capture_assets,
    delete_assets,
)

logger = logging.getLogger(__name__)

# Publishers wait while this many are removed.
_FOLDERS_AT_ONCE = 20
_ARTIFACTS_AT_ONCE = 200
RETENTION_VERSION = 1
"""Raise it when the rules of which results are kept change."""
_WRITTEN_LATELY = timedelta(hours=1)
_STEPS = 5


@dataclass(frozen=True)
class Removed:
    """Files of one kind that were removed."""

    files: int
    bytes: int


@dataclass(frozen=True)
class RetentionReport:
    """What a retention removed, or would remove.

    Attributes:
        cutoff: results completed before it count as old.
        dry_run: whether nothing was removed.
        rows: rows removed by kind: runs, portfolios, folds, jobs, column_sets, snapshots,
            restatements, environments.
        files: artifacts removed, by top-level folder.
        left: artifacts that could not be removed, and why; the next retention tries again.
    """

    cutoff: datetime
    dry_run: bool
    rows: Mapping[str, int]
    files: Mapping[str, Removed]
    left: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """Total bytes of the removed files."""
        return sum(removed.bytes for removed in self.files.values())


@dataclass(frozen=True)
class _Artifact:
    """A file, or a directory with a manifest."""

    files: int
    bytes: int
    modified: datetime


@dataclass
class _Tally:
    """What has been removed so far."""

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


def require_days(days: float) -> None:
    """Raise InvalidInput for `days` not above 0."""
    if not days > 0:
        raise InvalidInput(f"days must be above 0, not {days:g}")


def retain(
    workspace: Workspace, *, days: float, dry_run: bool = False, now: datetime | None = None
) -> RetentionReport:
    """Delete results older than `days`, and whatever nothing needs any more.

    Deletes runs completed before the cutoff, unless they are pinned, belong to a partition's latest
    refresh, are members of a kept portfolio, or are results of an unfinished job. Also deletes
    old portfolios that are not current, old finished jobs, snapshots, source archives and
    environments that no stored result was made from, and files that no row names, unless written
    within the last hour. The trial ledger and the leaderboards are kept.

    Args:
        workspace: the open store; its `progress` is called after each step.
        days: results completed longer ago are old.
        dry_run: only report what would be removed.
        now: the current time; the system clock's where None.

    Raises:
        InvalidInput: for `days` not above 0.
        RemovalHeldUp: where a backup or other writers hold it up for long; the next one goes on.
    """
    require_days(days)
    now = now or datetime.now(UTC)
    cutoff = now.astimezone(UTC) - timedelta(days=days)
    settled = now - _WRITTEN_LATELY
    tally = _Tally(_artifacts(workspace.artifacts.stored()))
    if dry_run:
        _rehearse(workspace, tally, cutoff, settled)
        return tally.report(cutoff, dry_run=True)
    workspace.progress("retention", 0, _STEPS)
    with workspace.database.begin() as connection:
        lock_for_removal(connection)
        retention.capture_aged(connection, cutoff)
    workspace.progress("retention", 1, _STEPS)
    _finish_captured(workspace, tally)
    workspace.progress("retention", 2, _STEPS)
    with workspace.database.begin() as connection:
        lock_for_removal(connection)
        tally.rows.update(retention.delete_aged(connection, cutoff))
    workspace.progress("retention", 3, _STEPS)
    _sweep(workspace, tally, settled)
    workspace.progress("retention", 4, _STEPS)
    workspace.artifacts.sweep(partial(nobody_writing, workspace.database))
    workspace.progress("retention", _STEPS, _STEPS)
    return tally.report(cutoff, dry_run=False)


def delete_runs(
    workspace: Workspace, run_ids: Sequence[UUID], removes_of: str | None = None
) -> int:
    """Delete runs with their rows and files, whatever their age; returns how many.

    Args:
        workspace: the open store.
        run_ids: the runs.
        removes_of: the only user whose runs may be deleted; anybody's where None.

    Raises:
        RunNotFound: for a run that is not stored.
        NotTheirs: for a run that somebody else requested, or a refresh made.
        InvalidInput: for a run that must be kept, with the reason; no run is deleted then.
    """
    with workspace.database.begin() as connection:
        lock_for_removal(connection)
        require_runs(connection, run_ids)
        require_own_runs(connection, run_ids, removes_of)
        reasons = retention.reasons_to_keep(connection, run_ids)
        if reasons:
            named = "; ".join(f"run {run_id} {why}" for run_id, why in sorted(reasons.items()))
            raise InvalidInput(f"nothing was deleted, because some runs must be kept: {named}")
        retention.capture(connection, run_ids)
    tally = _Tally({})
    _finish_captured(workspace, tally)
    if tally.left:
        raise ArtifactError("; ".join(tally.left.values()))
    return tally.rows["runs"]


def remove_source(workspace: Workspace, source: str) -> tuple[list[str], int]:
    """Remove the synthetic assets of a source, with all that was made of them.

    Runs go whatever holds them, portfolios and boards that have any of them, trials, signals,
    features and bars; files that nothing names any more go with the next retention.

    Returns:
        The symbols, sorted, and how many runs went.

    Raises:
        ArtifactError: for a folder that cannot be removed; called again it goes on from there.
    """
    with workspace.database.begin() as connection:
        lock_for_removal(connection)
        assets = assets_of_source(connection, source)
        capture_assets(connection, assets)
    tally = _Tally({})
    _finish_captured(workspace, tally)
    if tally.left:
        raise ArtifactError("; ".join(tally.left.values()))
    with workspace.database.begin() as connection:
        lock_for_removal(connection)
        delete_assets(connection, assets)
    return sorted(assets), tally.rows["runs"]


def _rehearse(workspace: Workspace, tally: _Tally, cutoff: datetime, settled: datetime) -> None:
    """Run all steps in one transaction that is rolled back, removing nothing."""
    with workspace.database.begin() as connection:
        lock_for_removal(connection)
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
    """Remove the artifacts of marked runs, then delete the runs whose artifacts are gone."""
    last = ""
    while True:
        with workspace.database.begin() as connection:
            # A process publishing one of these runs at the same time keeps it complete: either its
            # rows are there before we check whether the directory is needed, or it writes its
            # files afterwards.
            lock_for_removal(connection)
            folders = retention.captured_folders(connection, last, _FOLDERS_AT_ONCE)
            if not folders:
                return
            gone = _removed(workspace, [f.uri for f in folders if not f.shared], tally)
            shared = [f.uri for f in folders if f.shared]
            tally.rows["runs"] += retention.delete_captured(connection, [*gone, *shared])
        last = folders[-1].uri


def _sweep(workspace: Workspace, tally: _Tally, settled: datetime) -> None:
    """Remove artifacts that no row names, checking again before each removal."""
    with workspace.database.begin() as connection:
        unreferred = retention.unreferred(_old(tally, settled), retention.referred_to(connection))
    for i in range(0, len(unreferred), _ARTIFACTS_AT_ONCE):
        with workspace.database.begin() as connection:
            lock_for_removal(connection)
            known = retention.referred_to(connection)
            still = retention.unreferred(unreferred[i : i + _ARTIFACTS_AT_ONCE], known)
            _removed(workspace, still, tally)


def _removed(workspace: Workspace, uris: Iterable[str], tally: _Tally) -> list[str]:
    """Remove these artifacts; returns those that could be removed."""
    gone = []
    for uri in uris:
        try:
            workspace.artifacts.remove(uri)
        except ArtifactError as error:
            logger.warning("could not remove artifact %s: %s", uri, error)
            tally.left[uri] = str(error)
        else:
            gone.append(uri)
    tally.gone |= set(gone)
    return gone


def _old(tally: _Tally, settled: datetime) -> list[str]:
    """Artifacts that still exist and were not written to recently."""
    return sorted(
        uri
        for uri, artifact in tally.artifacts.items()
        if uri not in tally.gone and uri not in tally.left and artifact.modified < settled
    )


def _artifacts(stored: Iterable[StoredFile]) -> dict[str, _Artifact]:
    """The artifacts of this package by uri; a directory with a manifest counts as one."""
    files = [file for file in stored if file.uri.split("/")[0] in retention.KINDS]
    folders = {
        str(PurePosixPath(file.uri).parent)
        for file in files
        if PurePosixPath(file.uri).name == MANIFEST
    }
    artifacts: dict[str, _Artifact] = {}
    for file in files:
        parents = [str(parent) for parent in reversed(PurePosixPath(file.uri).parents)]
        uri = next((parent for parent in parents if parent in folders), file.uri)
        before = artifacts.get(uri, _Artifact(0, 0, file.modified))
        artifacts[uri] = _Artifact(
            before.files + 1, before.bytes + file.bytes, max(before.modified, file.modified)
        )
    return artifacts
