"""A server that dies or is restarted in the middle of a refresh costs time and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.chaos.harness import MARKETS, Judge, Tally, random_of
from backtest_pipeline_tests.chaos.servers import Server
from backtest_pipeline_tests.pipeline.dagster_processes import Hold, refresh_by_dagster
from backtest_pipeline_tests.pipeline.markets import assert_same, contents
from backtest_pipeline_tests.pipeline.processes import event, refreshing, started
from backtest_pipeline_tests.sql import rows
from backtest_pipeline_tests.waiting import LIMIT_S

# The embedded server is started again by those who use it; a server of others by others.
DEATHS: dict[str, tuple[bool, Callable[[Server], None]]] = {
    "killed": (True, Server.kill),
    "restarted at once": (False, lambda server: server.restart("immediate")),
    "restarted in order": (False, lambda server: server.restart("fast")),
    "gone for a while": (False, lambda server: server.stop_for(3)),
}
KILLED: dict[str, tuple[bool, Callable[[Server], None]]] = {"killed": (True, Server.kill)}
# Dagster's own storage gives up after 11 s.
GONE: dict[str, tuple[bool, Callable[[Server], None]]] = {
    "gone for 13 s": (False, lambda server: server.stop_for(13)),
}
OUTAGES = KILLED | GONE | {"gone for 30 s": (False, lambda server: server.stop_for(30))}


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.chaos)])
def test_a_refresh_outlasts_the_death_of_its_server(
    server: Server, judge: Judge, times: int
) -> None:
    rng, tally = random_of("restarts"), Tally()
    lasts = 0.0
    for n in range(times + 1):
        market = n % 2
        is_embedded, die = list(DEATHS.values())[(n - 1) % len(DEATHS)]
        opened = event()
        home = server.home if is_embedded else None
        process = refreshing(server.workspace, source=MARKETS[market], home=home, opened=opened)
        assert opened.wait(LIMIT_S)
        began = time.monotonic()
        if n == 0:  # undisturbed, to see how long it takes
            process.join(LIMIT_S)
            lasts = time.monotonic() - began
        else:
            process.join(rng.random() * lasts)
            tally.add(f"{list(DEATHS)[(n - 1) % len(DEATHS)]}, under way: {process.is_alive()}")
            die(server)
            process.join(LIMIT_S)
        assert process.exitcode == 0
        if n and is_embedded:
            server.workspace.database.ping()  # revives it, had the process ended before
        judge.require_done(server.workspace, market)
    print(tally.told())  # noqa: T201


@pytest.mark.parametrize(
    ("outages", "times"),
    [
        (KILLED, 1),
        pytest.param(GONE, 1, marks=pytest.mark.slow),
        pytest.param(OUTAGES, 12, marks=pytest.mark.chaos),
    ],
    ids=["killed", "gone", "all"],
)
def test_a_refresh_by_dagster_outlasts_an_outage_at_any_step(
    server: Server, outages: dict[str, tuple[bool, Callable[[Server], None]]], times: int
) -> None:
    rng, tally = random_of("outages of Dagster's storage"), Tally()
    expected, expected_events, steps = {}, set(), 0
    for n in range(times + 1):
        name, (is_embedded, die) = list(outages.items())[n % len(outages)]
        held = Hold(int(rng.integers(1, steps + 1)) if n else None)
        process = started(refresh_by_dagster, server.environment(embedded=is_embedded), held)
        if n:
            assert held.reached.wait(LIMIT_S)
            tally.add(name)
            die(server)
            held.go_on.set()
        process.join(LIMIT_S)
        assert process.exitcode == 0, (name, held.at)
        server.workspace.database.ping()
        found, events = contents(server.workspace), last_events(server.workspace)
        if n == 0:
            expected, expected_events, steps = found, events, held.steps.value
        assert_same(found, expected)
        assert events == expected_events
    print(tally.told())  # noqa: T201


def last_events(workspace: Workspace) -> set[tuple[str, ...]]:
    """What Dagster knows of the partitions from the last two runs, a refresh and its roll-up."""
    query = """
        SELECT dagster_event_type AS type, asset_key, coalesce(partition, '') AS partition
        FROM dagster.event_logs WHERE dagster_event_type IS NOT NULL
        AND run_id IN (SELECT run_id FROM dagster.runs ORDER BY id DESC LIMIT 2)
        UNION SELECT status, '', '' FROM dagster.runs"""
    return {tuple(str(value) for value in row.values()) for row in rows(workspace, query)}
