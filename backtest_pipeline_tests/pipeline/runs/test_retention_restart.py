"""A retention that is killed or runs twice ends as if undisturbed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline_tests.pipeline.runs.old_runs import (
    files,
    filled,
    retained,
    state,
)
from backtest_pipeline_tests.sql import distinct


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class DyingStore(ArtifactStore):
    """A store whose process ends at its `dies_at`-th removal, before it or after."""

    dies_at: int = -1
    after: bool = False
    removals: list[str] = field(default_factory=list)

    def remove(self, uri: str) -> None:
        self.removals.append(uri)
        if len(self.removals) != self.dies_at:
            return super().remove(uri)
        if self.after:
            super().remove(uri)
        raise Killed


def _dying_at_step(workspace: Workspace, step: int) -> Workspace:
    def progress(_stage: str, done: int, _total: int) -> None:
        if done == step:
            raise Killed

    return replace(workspace, progress=progress)


def _dying_at_removal(workspace: Workspace, n: int, after: bool) -> Workspace:
    return replace(
        workspace, artifacts=DyingStore(workspace.artifacts.root, dies_at=n, after=after)
    )


def test_killed_at_any_step_a_repeat_ends_as_if_undisturbed(shared: Workspace) -> None:
    filled(shared)
    retained(shared)
    undisturbed = state(shared)
    ways: list[Callable[[Workspace], Workspace]] = [
        *(lambda w, step=step: _dying_at_step(w, step) for step in range(5)),
        *(
            lambda w, n=n, after=after: _dying_at_removal(w, n, after)
            for n in (1, 5, 11, 12)
            for after in (False, True)
        ),
    ]
    for way in ways:
        filled(shared)
        with pytest.raises(Killed):
            retained(way(shared))
        _assert_visible_runs_are_whole(shared)
        retained(shared)
        assert state(shared) == undisturbed


def _assert_visible_runs_are_whole(workspace: Workspace) -> None:
    there = files(workspace)
    for uri in distinct(workspace, "SELECT artifact_uri FROM visible_runs"):
        assert f"{uri}/manifest.json" in there


def test_two_retentions_at_once_remove_what_one_would(shared: Workspace) -> None:
    filled(shared)
    one = retained(shared)
    undisturbed = state(shared)
    filled(shared)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: retained(shared), range(2)))
    assert state(shared) == undisturbed
    assert sum(report.rows["runs"] for report in reports) == one.rows["runs"]
