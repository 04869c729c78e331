"""Dagster's daemon is killed in the middle of ticks of the sensor `replans`: one replan each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from backtest_pipeline.defs.processes.launched_runs import (
    BOOK_TAG,
    REASONS_TAG,
    REPLAN_TAG,
    SEQUENCE_TAG,
)
from backtest_pipeline.pipeline.planning.books import add_book, request_replan
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.chaos.harness import Tally, random_of
from backtest_pipeline_tests.running_up import DAEMON, RunningUp, running_up
from backtest_pipeline_tests.sql import count, execute_sql, rows, scalar
from backtest_pipeline_tests.waiting import Gate, until

TF = "1W"
_TICK = """SELECT count(*) FROM dagster.job_ticks WHERE type = 'SENSOR' AND status = 'STARTED'
    AND tick_body LIKE '%"replans"%'"""
_RUN = "SELECT count(*) FROM dagster.run_tags WHERE key = 'backtest/replan' AND value = :request"
_TAGS = """SELECT r.status, t.tags FROM dagster.runs r JOIN (
        SELECT run_id, jsonb_object_agg(key, value) AS tags FROM dagster.run_tags GROUP BY run_id
    ) t USING (run_id) WHERE t.tags->>'backtest/replan' = :request ORDER BY r.id"""


@contextmanager
def held_tick(store: Workspace) -> Iterator[None]:
    """The sensor waits while it looks for triggers, until this ends."""
    with store.database.begin() as holder:
        holder.execute(sa.text("LOCK TABLE plan_books IN ACCESS EXCLUSIVE MODE"))
        Gate(store.database).hold_up()
        yield


def while_triggers_are_noted(store: Workspace, up: RunningUp, _request: str) -> None:
    with held_tick(store):
        up.child(DAEMON).kill()


def once_the_tick_has_begun(store: Workspace, up: RunningUp, _request: str) -> None:
    until(lambda: scalar(store, _TICK))
    up.child(DAEMON).kill()


def once_the_run_is_created(store: Workspace, up: RunningUp, request: str) -> None:
    until(lambda: scalar(store, _RUN, request=request))
    up.child(DAEMON).kill()


def at_any_time(_store: Workspace, up: RunningUp, _request: str) -> None:
    time.sleep(random_of("daemon").uniform(0, 30))
    up.child(DAEMON).kill()


POINTS: dict[str, Callable[[Workspace, RunningUp, str], None]] = {
    "while triggers are noted": while_triggers_are_noted,
    "once the tick has begun": once_the_tick_has_begun,
    "once the run is created": once_the_run_is_created,
    "at any time": at_any_time,
}


@pytest.mark.chaos
def test_a_daemon_that_is_killed_in_the_middle_of_a_tick_makes_one_replan(
    open_folder: Path,
) -> None:
    tally = Tally()
    with running_up(open_folder) as up:
        store = Workspace(
            open_database(load_settings(run_store_mode="embedded", home=up.home)),
            ArtifactStore(up.home / "artifacts"),
        )
        up.wait_for(up.launch_refresh(f"S-ALPHA|{TF}"), "SUCCESS")
        add_book(store, "core", ["S-ALPHA"], [TF], replans={"judge": None}, user="ann")
        until(lambda: answered(store, "1"), up.log.read_text)
        for n, (point, kill) in enumerate(POINTS.items()):
            stop = 4.0 + n % 2  # another plan each time
            execute_sql(
                store,
                "UPDATE plan_books SET config = jsonb_build_object('stop_loss_pct', :n)",
                n=stop,
            )
            plans = count(store, "plans")
            assert request_replan(store, "core", "ann", key=point)
            request = scalar(
                store, "SELECT request_id FROM replan_requests WHERE trigger_key = :p", p=point
            )
            kill(store, up, str(request))
            killed_at = time.time()
            until(lambda since=killed_at: up.is_well(since), up.log.read_text)
            until(lambda point=point: answered(store, point), up.log.read_text)
            tally.add(point)
            assert count(store, "plans") == plans + 1, point
            newest = rows(store, "SELECT * FROM plans ORDER BY sequence DESC LIMIT 1")[0]
            assert newest["replan_reasons"] == ["manual"], point
            until(lambda request=request: ended(store, str(request)), up.log.read_text)
            made = rows(store, _TAGS, request=str(request))
            assert [run["status"] for run in made] == ["SUCCESS"], point
            tags = made[0]["tags"]
            said = [tags[name] for name in (BOOK_TAG, REASONS_TAG, SEQUENCE_TAG, REPLAN_TAG)]
            assert said == ["core", "manual", str(newest["sequence"]), str(request)], point
        store.database.close()
    print(tally.told())  # noqa: T201


def answered(store: Workspace, key: str) -> bool:
    """Whether a replan has answered the request of this key."""
    query = "replan_requests WHERE status <> 'waiting' AND trigger_key = '{}'"
    return count(store, query.format(key)) == 1


def ended(store: Workspace, request: str) -> bool:
    """Whether all runs of a request have ended."""
    return all(
        run["status"] in ("SUCCESS", "FAILURE") for run in rows(store, _TAGS, request=request)
    )
