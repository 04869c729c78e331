"""Dagster's daemon is killed in the middle of ticks of a backfill: one run each, over all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from dagster._core.scheduler.instigation import ScheduleInstigatorData

from backtest_pipeline.defs.automation import switches
from backtest_pipeline.defs.automation.table import automation
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.chaos.harness import Tally
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.running_up import DAEMON, RunningUp, running_up
from backtest_pipeline_tests.sql import count, rows, scalar
from backtest_pipeline_tests.waiting import Gate, until

ASSETS = ("AAA", "BBB")
_STARTED = """SELECT count(*) FROM dagster.job_ticks WHERE type = 'SCHEDULE'
    AND status = 'STARTED'"""
_RUNS = """SELECT r.run_id, r.status FROM dagster.runs r JOIN dagster.run_tags t USING (run_id)
    WHERE t.key = 'backtest/backfill' AND t.value = :group"""
_TOLD = """SELECT asset_key, partition, count(*) AS n FROM dagster.event_logs
    WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND run_id = :run GROUP BY 1, 2"""


@contextmanager
def held_tick(store: Database) -> Iterator[None]:
    """The schedule waits while it looks at what is due, until this ends."""
    with store.begin() as holder:
        holder.execute(sa.text("LOCK TABLE source_states IN ACCESS EXCLUSIVE MODE"))
        Gate(store).hold_up()
        yield


def while_it_looks_at_what_is_due(store: Database, up: RunningUp, _group: str) -> None:
    with held_tick(store):
        up.child(DAEMON).kill()


def once_the_tick_has_begun(store: Database, up: RunningUp, _group: str) -> None:
    until(lambda: scalar(store, _STARTED), up.log.read_text)
    up.child(DAEMON).kill()


def once_the_run_is_created(store: Database, up: RunningUp, group: str) -> None:
    until(lambda: rows(store, _RUNS, group=group), up.log.read_text)
    up.child(DAEMON).kill()


# A schedule of its own for each, as nothing repeats a tick that has ended.
POINTS: dict[str, tuple[str, str, Callable[[Database, RunningUp, str], None]]] = {
    "while it looks at what is due": ("daily", "1D", while_it_looks_at_what_is_due),
    "once the tick has begun": ("weekly", "1W", once_the_tick_has_begun),
    "once the run is created": ("monthly", "1M_CAL", once_the_run_is_created),
}


def turn_on(up: RunningUp, store: Database, group: str) -> None:
    """Turn a backfill on as if the daemon had been down for two days, so that a tick is due."""
    row = automation(f"{group}_backfill")
    settings = load_settings(run_store_mode="embedded", home=up.home)
    with open_instance(settings, store) as instance:
        switches.switch(instance, row, on=True)
        (state,) = [s for s in instance.all_instigator_state() if s.name == row.name]
        data = ScheduleInstigatorData(row.cron, time.time() - 2 * 86_400)
        instance.update_instigator_state(state.with_data(data))


@pytest.mark.chaos
def test_a_daemon_that_is_killed_in_the_middle_of_a_tick_makes_one_run(
    open_folder: Path,
) -> None:
    tally, folder = Tally(), open_folder / "backfills" / "bars"
    folder.mkdir(parents=True)
    for asset in ASSETS:
        write(daily_bars(120, symbol=asset), folder / f"{asset}.csv")
    environment = {"BACKTEST_BARS": str(folder), "BACKTEST_TIMEFRAMES": "1D 1W 1M_CAL"}
    with running_up(folder.parent, environment) as up:
        settings = load_settings(run_store_mode="embedded", home=up.home)
        with closing(open_database(settings)) as store:
            up.child(DAEMON).kill()  # it remembers when it looked at each that was on
            for point, (group, tf, kill) in POINTS.items():
                turn_on(up, store, group)
                kill(store, up, group)
                killed_at = time.time()
                until(lambda since=killed_at: up.is_well(since), up.log.read_text)
                until(lambda group=group: has_run(store, group), up.log.read_text)
                until(lambda: not scalar(store, _STARTED), up.log.read_text)
                (run,) = rows(store, _RUNS, group=group)
                assert run["status"] == "SUCCESS", point
                told = rows(store, _TOLD, run=run["run_id"])
                assert {row["n"] for row in told} == {1}, point
                assert {row["partition"] for row in told} >= {f"{a}|{tf}" for a in ASSETS}, point
                tally.add(point)
            made = "backtest_runs WHERE is_current"
            presets = count(store, "dim_signals WHERE is_active")
            assert count(store, made) == presets * len(ASSETS) * len(POINTS)
    print(tally.told())  # noqa: T201


def has_run(store: Database, group: str) -> bool:
    """Whether a run of the backfill has ended, and none is under way."""
    made = rows(store, _RUNS, group=group)
    return bool(made) and all(run["status"] in ("SUCCESS", "FAILURE") for run in made)
