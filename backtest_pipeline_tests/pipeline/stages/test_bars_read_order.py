"""Bars of an earlier read never replace those of a later one, whoever writes first."""

from __future__ import annotations

import time

import pytest

from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.stage import StageReport
from backtest_pipeline.pipeline.stages.bars import BarsStage, bar_batches
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.pipeline.markets import StaticSource
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS, market_without
from backtest_pipeline_tests.sql import distinct

ASSETS = sorted({p.asset for p in PARTITIONS})
HOUR_NS = 3600 * 10**9


def reader_of(workspace: Workspace, source: StaticSource) -> SourceReader:
    """A reader that has read the source."""
    reader = SourceReader(source, ASSETS, workspace)
    assert reader.bars.panels
    return reader


def stored(workspace: Workspace, reader: SourceReader, *, rebuild: bool = False) -> StageReport:
    stage = BarsStage(workspace, reader)
    return run_stage(bar_batches(reader, PARTITIONS), stage, rebuild=rebuild)


def last_bars(workspace: Workspace) -> set[str]:
    return {str(ts) for ts in distinct(workspace, "SELECT last_ts FROM dataset_versions")}


@pytest.mark.parametrize("rebuild", [False, True])
def test_what_was_read_earlier_and_is_written_later_leaves_the_newer_bars(
    workspace: Workspace, rebuild: bool
) -> None:
    earlier = reader_of(workspace, market_without(30))
    assert stored(workspace, reader_of(workspace, MARKET)).counts == {"stored": len(PARTITIONS)}
    newest = last_bars(workspace)
    assert stored(workspace, earlier, rebuild=rebuild).counts == {"unchanged": len(PARTITIONS)}
    assert last_bars(workspace) == newest
    # Read again, the source has lost its last bars, and that is how it is now.
    assert stored(workspace, reader_of(workspace, market_without(30))).counts == {
        "stored": len(PARTITIONS)
    }
    assert last_bars(workspace).isdisjoint(newest)


def test_the_clock_of_a_host_does_not_decide_who_read_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = time.time_ns
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time_ns", lambda: ours() + HOUR_NS)
        stored(workspace, reader_of(workspace, market_without(30)))
    newer = stored(workspace, reader_of(workspace, MARKET))
    assert newer.counts == {"stored": len(PARTITIONS)}
