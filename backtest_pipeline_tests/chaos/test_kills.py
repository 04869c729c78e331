"""Refreshes that are killed at any instant leave the old result or the new one."""

from __future__ import annotations

import time

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.chaos.harness import (
    MARKETS,
    Judge,
    Tally,
    instants,
    random_of,
    reading,
)
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.processes import PARTITIONS, refreshing
from backtest_pipeline_tests.waiting import LIMIT_S


def how_long(workspace: Workspace) -> float:
    """How long an undisturbed refresh of another market takes, in a process of its own."""
    lasts = 0.0
    for source in reversed(MARKETS):  # the first one waits for what processes are forked from
        began = time.monotonic()
        process = refreshing(workspace, source=source)
        process.join(LIMIT_S)
        assert process.exitcode == 0
        lasts = time.monotonic() - began
    return lasts


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.chaos)])
def test_killed_refreshes_leave_old_or_new_and_a_repeat_ends_as_if_undisturbed(
    workspace: Workspace, judge: Judge, kills: int
) -> None:
    rng, tally = random_of("kills"), Tally()
    lasts = how_long(workspace)
    with reading(workspace, judge, pause_s=0 if kills > 2 else 2) as reader:
        for n, instant in enumerate(instants(rng, kills, lasts), 1):
            market = n % 2
            process = refreshing(workspace, source=MARKETS[market], rebuild=bool(n % 3 == 0))
            process.join(instant)
            process.kill()
            process.join()
            tally.add("killed" if process.exitcode else "ended before")
            judge.require_whole(workspace)
            if kills == 2 and n % 2:
                continue  # the next one, of the other market, begins on what this one left
            refresh(workspace, MARKETS[market], PARTITIONS)
            judge.require_done(workspace, market)
    tally.add("looks of a concurrent reader", reader.looks)
    print(tally.told())  # noqa: T201
    assert tally.counts["killed"] >= kills / 4
