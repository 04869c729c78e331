"""What is due follows from what is stored."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, timeframe
from backtest_pipeline.pipeline.use_cases import due_partitions as due
from backtest_pipeline.pipeline.use_cases.due_partitions import DueReason, due_partitions, is_due
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.tables.datasets import DatasetVersion
from backtest_pipeline_tests.pipeline.markets import (
    PARTITIONS,
    assert_same,
    changed,
    contents,
    outcome,
    refresh,
    until,
    us,
    whole,
)

STORED = DatasetVersion("v", "i", "c", "g", 10, 0, 0)


def closing(day: str) -> DatasetVersion:
    return replace(STORED, last_ts=us(day) - CLOSE_STAMP_US)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("newest", "read", "is_so"),
    [
        ("2025-06-10", "2025-06-09T23:00", False),  # it has the newest bar
        ("2025-06-09", "2025-06-10T00:20", True),  # it lacks that one: the source may be late
        ("2025-06-05", "2025-06-09T00:20", True),  # silent for days, and a bar has closed since
        ("2025-06-05", "2025-06-10T00:20", False),  # read since
        ("2025-03-01", "2025-06-09T00:20", False),  # silent for months: not every day
        ("2025-03-01", "2025-05-20T00:20", True),  # but now and then
    ],
)
def test_a_source_is_read_when_a_bar_may_have_come(newest: str, read: str, is_so: bool) -> None:
    closed = timeframe("1D").last_closes(us("2025-06-10") + 1_200_000_000)
    assert is_due(closing(newest), at(read), closed) is is_so


def test_what_was_never_read_or_is_empty_is_read() -> None:
    closed = timeframe("1D").last_closes(us("2025-06-10"))
    empty = replace(STORED, n_rows=0, last_ts=None)
    assert is_due(None, at("2025-06-10T01:00"), closed)
    assert is_due(closing("2025-06-08"), None, closed)
    assert is_due(empty, at("2025-06-09T01:00"), closed)
    assert not is_due(empty, at("2025-06-10T01:00"), closed)


def test_a_store_that_is_up_to_date_lacks_what_is_new(refreshed: Workspace) -> None:
    config, end = SimulationConfig(), us("2026-01-01")
    nothing = due_partitions(refreshed, whole(), config, PARTITIONS, end)
    delisted = {p for p in nothing.reasons if p.asset == "S-MU"}
    assert set(nothing.reasons) <= delisted  # never read by a clock: once
    other = Partition("S-ALPHA", "2D")
    found = due_partitions(refreshed, whole(), config, [*PARTITIONS, other], end)
    assert found.reasons[other] is DueReason.MISSING
    later = due_partitions(refreshed, whole(), config, PARTITIONS, us("2026-01-02") + 1)
    # Weeks and months are marked at the days: each day is another reason to try them.
    assert later.closed["1W"] == later.closed["1M_CAL"] == later.closed["1D"] == us("2026-01-02")
    assert later.reasons[Partition("S-ALPHA", "1D")] is DueReason.NEW_BARS
    assert Partition("S-ALPHA", "1W") not in later.reasons
    dearer = replace(config, initial_cash=config.initial_cash * 2)
    assert set(due_partitions(refreshed, whole(), dearer, PARTITIONS, end).reasons) == set(
        PARTITIONS
    )


def test_an_asset_that_left_the_source_is_named_and_not_due(refreshed: Workspace) -> None:
    gone = Partition("GONE", "1D")
    found = due_partitions(
        refreshed, until("2025-12-01"), SimulationConfig(), [gone], us("2026-01-01")
    )
    assert found.reasons == {}
    assert found.text == (
        "of 1 partitions none to compute; left the source, their bars are kept: GONE"
    )
    assert due.BarsClose.of(timeframe("2W")) is due.BarsClose.WEEKS


def test_what_is_stale_of_an_asset_that_left_is_computed_from_its_stored_bars(
    refreshed: Workspace,
) -> None:
    """Its results are those of one full refresh, as if it had been there until the end."""
    config, end = SimulationConfig(initial_cash=50_000.0), us("2026-01-01")
    left = [p for p in PARTITIONS if p.asset == "S-ALPHA"]
    remaining = changed(lambda panel: panel.select([a for a in panel.assets if a != "S-ALPHA"]))
    found = due_partitions(refreshed, remaining, config, left, end)
    assert found.reasons == dict.fromkeys(left, DueReason.STALE)
    assert found.absent == ("S-ALPHA",)
    for asked in (PARTITIONS, left):
        reports = refresh(refreshed, remaining, asked, config)
        assert not any(report.failed for report in reports.values())
        assert {outcome(reports["bars"], p)[0] for p in left} == {"unchanged"}
    assert due_partitions(refreshed, remaining, config, left, end).reasons == {}
    kept = contents(refreshed, left)
    refresh(refreshed, whole(), left, config, rebuild=True)
    assert_same(contents(refreshed, left), kept)
