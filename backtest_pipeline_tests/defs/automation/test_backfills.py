"""Schedules of backfills request what is due, once, and nothing where nothing is."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.automation.backfills import (
    daily_backfill,
    hourly_backfill,
    monthly_backfill,
    weekly_backfill,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline.sources.choose import choose_source
from backtest_pipeline.sources.files import states
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import exchange_access
from backtest_pipeline_tests.cli.files import PRICES, daily_bars, write
from backtest_pipeline_tests.defs.automation.ticking import at, launched, tick
from backtest_pipeline_tests.defs.running import failure_of, materialized, selected, told
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.sql import execute_sql

NOW = at("2024-04-01T00:20:00")


@pytest.fixture
def folder(store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of 91 daily bars of each asset, up to the end of March 2024."""
    monkeypatch.setenv("BACKTEST_TIMEFRAMES", "1D 2D 1W 1M_CAL")
    monkeypatch.setattr(states, "_SETTLED_NS", 0)
    folder = tmp_path / "bars"
    folder.mkdir()
    for number, asset in enumerate(("AAA", "BBB", "CCC")):
        keep(folder, asset, 91, 1 + number / 7)
    monkeypatch.setenv("BACKTEST_BARS", str(folder))
    execute_sql(store, "UPDATE dim_signals SET is_active = FALSE WHERE signal_id > 2")
    return folder


@pytest.fixture
def current(folder: Path) -> Path:
    """That folder, whose days the store has, of which Dagster has not heard."""
    partitions = [Partition(a, tf) for a in ("AAA", "BBB", "CCC") for tf in ("1D", "2D")]
    with open_workspace() as workspace:
        refresh(workspace, choose_source(str(folder), exchange_access), partitions)
    return folder


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def keep(folder: Path, asset: str, n: int, factor: float = 1.0) -> None:
    bars = daily_bars(n, symbol=asset)
    bars[PRICES] *= factor
    write(bars, folder / f"{asset}.csv")


def requested(
    instance: dg.DagsterInstance, schedule: dg.ScheduleDefinition, when: datetime = NOW
) -> dg.RunRequest:
    request = tick(instance, schedule, when)
    assert isinstance(request, dg.RunRequest), request
    return request


def done(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    run = launched(instance, request)
    assert run is not None
    assert run.success, failure_of(run)
    return run


def test_each_schedule_requests_its_timeframes_and_then_has_nothing_to_do(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    for schedule, timeframes in (
        (weekly_backfill, ("1W",)),
        (monthly_backfill, ("1M_CAL",)),
        (daily_backfill, ("1D", "2D")),
    ):
        request = requested(instance, schedule)
        keys = {f"{asset}|{tf}" for asset in ("AAA", "BBB", "CCC") for tf in timeframes}
        assert selected(instance, request) == keys
    run = done(instance, request)
    assert set(told(instance, run, "backtests")) == materialized(instance, "backtests") == keys
    assert tick(instance, daily_backfill, NOW) == "of 6 partitions none to compute"
    assert "hourly bars" in str(tick(instance, hourly_backfill, NOW))


def test_only_what_is_due_is_requested_and_the_same_tick_twice_runs_once(
    current: Path, store: Database, instance: dg.DagsterInstance
) -> None:
    assert tick(instance, daily_backfill, NOW) == "of 6 partitions none to compute"
    with store.begin() as connection:
        connection.exec_driver_sql(
            "DELETE FROM dataset_versions v USING dim_assets a WHERE a.id = v.id"
            " AND a.symbol IN ('AAA', 'CCC') AND v.dataset = 'backtests' AND v.tf = '1D'"
        )
    later = at("2024-04-01T01:20:00")
    request, again = (requested(instance, daily_backfill, later) for _ in range(2))
    assert request.run_key == again.run_key == "2024-04-01T01:20:00+00:00/daily"
    run = done(instance, request)
    assert set(told(instance, run, "backtests")) == {"AAA|1D", "CCC|1D"}
    assert launched(instance, again) is None


def test_what_a_run_computes_already_is_not_requested_again(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    request = requested(instance, daily_backfill)
    job = build_definitions().resolve_job_def("refresh")
    # The daemon died before it launched this one; the tick again makes Dagster do so.
    instance.create_run_for_job(job, tags=dict(request.tags))
    assert requested(instance, daily_backfill) == request
    run = instance.create_run_for_job(
        job, tags=dict(request.tags), status=dg.DagsterRunStatus.STARTED
    )
    assert f"under way already, in run {run.run_id}" in str(tick(instance, daily_backfill, NOW))
    keep(folder, "DDD", 91)
    other = requested(instance, daily_backfill)
    assert other.tags["dagster/asset_partition_range_start"] == "DDD|1D"
    instance.report_run_canceled(run)
    assert requested(instance, daily_backfill).tags["backtest/backfill"] == "daily"


def test_new_assets_come_in_and_those_that_left_are_named(
    current: Path, instance: dg.DagsterInstance
) -> None:
    tick(instance, daily_backfill, NOW)
    (current / "BBB.csv").unlink()
    keep(current, "DDD", 91)
    run = done(instance, requested(instance, daily_backfill, at("2024-04-02T00:20:00")))
    assert {key.split("|")[0] for key in told(instance, run, "bars")} == {"AAA", "CCC", "DDD"}
    skipped = str(tick(instance, daily_backfill, at("2024-04-02T01:20:00")))
    assert "none to compute; left the source, their bars are kept: BBB" in skipped


def test_a_partition_that_always_fails_is_given_up_until_its_next_bar_closes(
    current: Path, instance: dg.DagsterInstance
) -> None:
    keep(current, "BAD", 91, -1.0)
    request = requested(instance, daily_backfill)
    run = launched(instance, request)
    assert run is not None
    assert not run.success
    assert {key.split("|")[0] for key in told(instance, run, "bars")} == {"AAA", "BBB", "CCC"}
    for hour in ("01", "02", "04"):
        request = requested(instance, daily_backfill, at(f"2024-04-01T{hour}:20"))
        failed = dg.DagsterRun("refresh", tags=request.tags, status=dg.DagsterRunStatus.FAILURE)
        instance.add_run(failed)
    skipped = str(tick(instance, daily_backfill, at("2024-04-01T08:20")))
    assert "3 runs over exactly these have not changed that" in skipped
    assert isinstance(tick(instance, daily_backfill, at("2024-04-02T00:20")), dg.RunRequest)


def test_a_source_that_is_down_fails_the_tick_with_its_reason(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_BARS", str(folder / "gone"))
    with pytest.raises(dg.DagsterError) as failure:
        tick(instance, daily_backfill, NOW)
    assert "gone: no such file or folder" in str(failure.value.__cause__)
    monkeypatch.setenv("BACKTEST_BARS", str(folder))
    requested(instance, daily_backfill, at("2024-04-01T01:20"))


def test_a_timeframe_that_was_removed_is_not_requested(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "AAA|2D" in selected(instance, requested(instance, daily_backfill))
    monkeypatch.setenv("BACKTEST_TIMEFRAMES", "1D")
    request = requested(instance, daily_backfill)
    assert selected(instance, request) == {"AAA|1D", "BBB|1D", "CCC|1D"}


def test_a_clock_that_was_set_back_or_far_ahead_requests_nothing_twice(
    current: Path, instance: dg.DagsterInstance
) -> None:
    """The files say themselves that they are as they were."""
    for when in ("2024-01-01T00:20", "2030-01-01T00:20", "2024-04-01T00:20"):
        assert tick(instance, daily_backfill, at(when)) == "of 6 partitions none to compute"
