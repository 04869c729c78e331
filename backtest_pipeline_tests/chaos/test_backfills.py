"""Dagster's daemon is killed in the middle of ticks of a backfill: one run each, over all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from backtest_pipeline.defs.automation import switches
from backtest_pipeline.defs.automation.table import automation
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.chaos.harness import Tally
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.running_up import DAEMON, RunningUp, running_up
from backtest_pipeline_tests.sql import count, distinct, rows, scalar
from backtest_pipeline_tests.waiting import Gate, until

BACKFILL = automation("daily_backfill")
_TICKS = """SELECT count(*) FROM dagster.job_ticks WHERE type = 'SCHEDULE'
    AND tick_body LIKE '%"daily_backfill"%' AND status = :status"""
_RUNS = """SELECT r.run_id, r.status FROM dagster.runs r JOIN dagster.run_tags t USING (run_id)
    WHERE t.key = 'backtest/backfill' ORDER BY r.id"""
_TOLD = """SELECT asset_key, partition, count(*) AS n FROM dagster.event_logs
    WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND run_id = :run GROUP BY 1, 2"""


@contextmanager
def held_tick(store: Database) -> Iterator[None]:
    """The schedule waits while it looks at what is due, until this ends."""
    with store.begin() as holder:
        holder.execute(sa.text("LOCK TABLE source_states IN ACCESS EXCLUSIVE MODE"))
        Gate(store).hold_up()
        yield


def while_it_looks_at_what_is_due(store: Database, up: RunningUp, _runs: int) -> None:
    with held_tick(store):
        up.child(DAEMON).kill()


def once_the_tick_has_begun(store: Database, up: RunningUp, _runs: int) -> None:
    until(lambda: scalar(store, _TICKS, status="STARTED"))
    up.child(DAEMON).kill()


def once_the_run_is_created(store: Database, up: RunningUp, runs: int) -> None:
    until(lambda: len(rows(store, _RUNS)) > runs)
    up.child(DAEMON).kill()


POINTS: dict[str, Callable[[Database, RunningUp, int], None]] = {
    "while it looks at what is due": while_it_looks_at_what_is_due,
    "once the tick has begun": once_the_tick_has_begun,
    "once the run is created": once_the_run_is_created,
}


def turn_on(up: RunningUp, store: Database) -> None:
    """Turn the backfill on as if it had been on for a day, so that the daemon has a tick due."""
    settings = load_settings(run_store_mode="embedded", home=up.home)
    with open_instance(settings, store) as instance:
        switches.switch(instance, BACKFILL, on=True)
        (state,) = [s for s in instance.all_instigator_state() if s.name == BACKFILL.name]
        data = type(state.instigator_data)(BACKFILL.cron, time.time() - 86_400)
        instance.update_instigator_state(state.with_data(data))


def turn_off(up: RunningUp, store: Database) -> None:
    settings = load_settings(run_store_mode="embedded", home=up.home)
    with open_instance(settings, store) as instance:
        switches.switch(instance, BACKFILL, on=False)


@pytest.mark.chaos
def test_a_daemon_that_is_killed_in_the_middle_of_a_tick_makes_one_run(
    open_folder: Path, tmp_path: Path
) -> None:
    """Each time another asset is new, so that each tick has something to do."""
    tally, folder = Tally(), open_folder / "backfills" / "bars"
    folder.mkdir(parents=True)
    environment = {"BACKTEST_BARS": str(folder), "BACKTEST_TIMEFRAMES": "1D"}
    assets = []
    with running_up(folder.parent, environment) as up:
        settings = load_settings(run_store_mode="embedded", home=up.home)
        with closing(open_database(settings)) as store:
            for n, (point, kill) in enumerate(POINTS.items()):
                assets.append(f"A{n}")
                write(daily_bars(91, symbol=assets[-1]), folder / f"{assets[-1]}.csv")
                turn_on(up, store)
                kill(store, up, n)
                killed_at = time.time()
                until(lambda since=killed_at: up.is_well(since), up.log.read_text)
                until(lambda n=n: has_run(store, n + 1), up.log.read_text)
                # Nothing more comes of the same tick, nor of the next ones.
                until(lambda: not scalar(store, _TICKS, status="STARTED"))
                turn_off(up, store)
                tally.add(point)
                made = rows(store, _RUNS)
                assert [run["status"] for run in made] == ["SUCCESS"] * (n + 1), point
                new = list(rows(store, _TOLD, run=made[-1]["run_id"]))
                assert {row["n"] for row in new} == {1}, point
                assert f"{assets[-1]}|1D" in {row["partition"] for row in new}
                stored = "SELECT DISTINCT symbol FROM backtest_runs WHERE is_current"
                assert distinct(store, stored) == {*assets}
            presets = count(store, "dim_signals WHERE is_active")
            assert count(store, "backtest_runs WHERE is_current") == presets * len(assets)
    print(tally.told())  # noqa: T201


def has_run(store: Database, n: int) -> bool:
    """Whether so many runs of the backfill have ended."""
    made = rows(store, _RUNS)
    return len(made) >= n and all(r["status"] in ("SUCCESS", "FAILURE") for r in made)
