"""The harness finds fault with a publisher that deserves it."""

from __future__ import annotations

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.chaos.harness import (
    MARKETS,
    Judge,
    fresh,
    random_of,
    sweep_at_once,
    unnamed_files,
)
from backtest_pipeline_tests.chaos.naive import naively_refreshing
from backtest_pipeline_tests.pipeline.markets import contents, refresh
from backtest_pipeline_tests.pipeline.processes import PARTITIONS
from backtest_pipeline_tests.sql import count


@pytest.mark.parametrize("about", ["rows", "files"])
def test_a_naive_publisher_is_caught_within_a_few_kills(
    workspace: Workspace, judge: Judge, about: str
) -> None:
    rng = random_of(f"naive about {about}")
    refresh(workspace, MARKETS[0], PARTITIONS)
    for _ in range(20):
        process = naively_refreshing(workspace, MARKETS[1], about)
        while process.exitcode is None and not _is_half_way(workspace, about):
            process.join(rng.random() * 0.02)
        process.kill()
        process.join()
        sweep_at_once(workspace.artifacts)
        if judge.mixed(contents(fresh(workspace))) or unnamed_files(workspace.artifacts):
            return
        refresh(workspace, MARKETS[0], PARTITIONS)
    pytest.fail("20 kills of a naive publisher left nothing that the harness finds fault with")


def _is_half_way(workspace: Workspace, about: str) -> bool:
    """Whether the naive publisher has taken something away, or left a file without its row."""
    if about == "files":
        return bool(unnamed_files(workspace.artifacts))
    runs = count(workspace, "backtest_runs WHERE is_current")
    return (runs or 0) < 6 * len(PARTITIONS)
