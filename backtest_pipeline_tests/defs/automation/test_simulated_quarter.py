"""Weeks of ticks of the schedules, with all that goes wrong, end as one full refresh would."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.automation.backfills import (
    daily_backfill,
    monthly_backfill,
    weekly_backfill,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stages import source_reader
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.sources.choose import choose_source
from backtest_pipeline.sources.files import states
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import exchange_access
from backtest_pipeline_tests.defs.automation.ticking import launched, tick
from backtest_pipeline_tests.defs.running import failure_of
from backtest_pipeline_tests.pipeline.conftest import fresh_store  # noqa: F401
from backtest_pipeline_tests.pipeline.markets import assert_same, contents, refresh
from backtest_pipeline_tests.sql import execute_sql

ASSETS = ("AAA", "BBB", "CCC", "DDD", "NEW", "OLD")
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
HISTORY = 90
FEW_PRESETS = "UPDATE dim_signals SET is_active = FALSE WHERE signal_id > 2"
ALL = ((daily_backfill, 20), (weekly_backfill, 30), (monthly_backfill, 40))


@dataclass(frozen=True)
class Course:
    """What happens on which day of a simulation, counted from its first tick."""

    days: int
    new: int
    delisted: int
    left: int
    hole: range
    restated: int
    down: range
    failed: int

    def bars(self, asset: str, day: int) -> pd.DataFrame:
        """What the source knows of an asset at the beginning of a day."""
        truth = _truth(asset, HISTORY + self.days)
        known = truth.iloc[: HISTORY + day]
        if asset == "NEW":
            known = known.iloc[HISTORY - 20 :] if day >= self.new else known.iloc[:0]
        if asset == "OLD":
            known = known.iloc[: HISTORY + self.delisted]
        if asset == "BBB" and day in self.hole:
            known = known.iloc[: HISTORY + self.hole.start]
        if asset == "CCC" and day < self.restated:
            known = known.assign(close=known["close"].where(known.index != HISTORY - 5, 100.0))
        return known


SHORT = Course(
    days=5, new=3, delisted=1, left=3, hole=range(1, 3), restated=4, down=range(2, 3), failed=3
)
QUARTER = Course(
    days=90,
    new=30,
    delisted=58,
    left=60,
    hole=range(10, 14),
    restated=40,
    down=range(50, 53),
    failed=25,
)


def _truth(asset: str, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(ASSETS.index(asset))
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.04, n)))
    open_ = np.append(100.0, close[:-1])
    return pd.DataFrame(
        {
            "symbol": asset,
            "ts": pd.date_range(BEGIN, periods=n, freq="D"),
            "open": open_,
            "high": np.maximum(np.maximum(open_, close), 100.0) * 1.02,
            "low": np.minimum(np.minimum(open_, close), 100.0) * 0.98,
            "close": close,
            "volume": 1000.0,
        }
    )


@dataclass
class Desk:
    """A store, its schedules and what they have done."""

    folder: Path
    instance: dg.DagsterInstance
    job: dg.JobDefinition
    runs: list[dg.ExecuteInProcessResult] = field(default_factory=list)
    ticks: int = 0
    looks: int = 0
    failed_ticks: int = 0

    def write(self, course: Course, day: int, *, all_of_them: bool = False) -> None:
        """Write the files that are others than the day before."""
        for asset in ASSETS:
            path, bars = self.folder / f"{asset}.csv", course.bars(asset, day)
            if bars.empty or (asset == "OLD" and day >= course.left and not all_of_them):
                path.unlink(missing_ok=True)
                continue
            text = bars.to_csv(index=False)
            if not path.exists() or path.read_text() != text:
                path.write_text(text)

    def tick(self, schedule: dg.ScheduleDefinition, at: datetime) -> None:
        self.ticks += 1
        request = tick(self.instance, schedule, at)
        if isinstance(request, dg.RunRequest):
            run = launched(self.instance, request, self.job)
            assert run is not None
            assert run.success, failure_of(run)
            self.runs.append(run)
            assert launched(self.instance, request, self.job) is None  # the same tick again


@pytest.fixture
def desk(store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("BACKTEST_TIMEFRAMES", "1D 3D 1W 1M_CAL")
    monkeypatch.setattr(states, "_SETTLED_NS", 0)
    execute_sql(store, FEW_PRESETS)
    folder = tmp_path / "bars"
    folder.mkdir()
    monkeypatch.setenv("BACKTEST_BARS", str(folder))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Desk(folder, instance, build_definitions().resolve_job_def("refresh"))


def simulate(desk: Desk, course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live through the days of a course, with a tick of each schedule a day."""
    for day in range(course.days):
        desk.write(course, day)
        if day in course.down:
            continue
        midnight = BEGIN + timedelta(days=HISTORY + day)
        monkeypatch.setattr(
            source_reader, "now_us", lambda at=midnight: int(at.timestamp() * 1e6) + 1_300_000_000
        )
        if day == course.failed:
            away = desk.folder.rename(desk.folder.parent / "away")
            with pytest.raises(dg.DagsterError):
                desk.tick(daily_backfill, midnight + timedelta(minutes=20))
            away.rename(desk.folder)
            desk.failed_ticks += 1
            desk.tick(daily_backfill, midnight + timedelta(minutes=80))
        # In truth all tick every day. OLD leaves between two of these, so that its weeks and months
        # have to be marked at its last days when it is gone.
        looked_at = midnight.weekday() == 0 or midnight.day == 1 or day + 1 == course.days
        desk.looks += looked_at
        for schedule, minute in ALL if looked_at else ALL[:1]:
            desk.tick(schedule, midnight + timedelta(minutes=minute))


def check(
    desk: Desk, course: Course, make: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(desk, course, monkeypatch)
    desk.write(course, course.days - 1, all_of_them=True)
    partitions = [Partition(a, tf) for a in ASSETS for tf in ("1D", "3D", "1W", "1M_CAL")]
    full = make()
    execute_sql(full, FEW_PRESETS)
    refresh(full, choose_source(str(desk.folder), exchange_access), partitions)
    with open_workspace() as workspace:
        assert_same(contents(workspace, partitions), contents(full, partitions))
    events = desk.instance.all_logs
    told = sum(
        len(events(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION))
        for run in desk.runs
    )
    lived = course.days - len(course.down)
    assert desk.failed_ticks == 1
    # One for the days, and one each for the weeks and months when they are looked at.
    assert lived <= len(desk.runs) <= lived + 2 * desk.looks
    # Four assets of 1D and 3D; of 1W or 1M_CAL four, and the bars and features of the days.
    n = len(ASSETS)
    assert told <= 4 * 2 * n * lived + 2 * (4 * n + 2 * n) * desk.looks
    print(f"{desk.ticks} ticks, {len(desk.runs)} runs, {told} materializations")  # noqa: T201


def test_some_days_end_as_one_full_refresh(
    desk: Desk,
    fresh_store: Callable[[], Workspace],  # noqa: F811 - a fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(desk, SHORT, fresh_store, monkeypatch)


@pytest.mark.slow
def test_a_quarter_ends_as_one_full_refresh(
    desk: Desk,
    fresh_store: Callable[[], Workspace],  # noqa: F811 - a fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(desk, QUARTER, fresh_store, monkeypatch)
