"""Two hosts, each with a home of its own, on one database and one bucket: equal to one host."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.results import RunResult
from backtest_pipeline.pipeline.runs.retention import retain
from backtest_pipeline.pipeline.specs import RunSpec
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.artifacts.artifacts import ROOT_ID_FILE, ArtifactStore
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline_tests.buckets import Server
from backtest_pipeline_tests.chaos.harness import MARKETS, Judge, random_of, referenced
from backtest_pipeline_tests.pipeline.markets import (
    Contents,
    StaticSource,
    assert_same,
    contents,
    refresh,
)
from backtest_pipeline_tests.pipeline.processes import (
    MARKET,
    PARTITIONS,
    barrier,
    event,
    market_without,
    started,
)
from backtest_pipeline_tests.sql import scalar
from backtest_pipeline_tests.waiting import LIMIT_S, until

SOME = [p for p in PARTITIONS if p.asset in "ABCD"]
HALVES = [[p for p in SOME if p.asset in half] for half in ("AB", "CD")]
BUCKETS = ["s3", pytest.param("azure", marks=pytest.mark.chaos)]


class Hosts:
    """Processes on hosts of their own; each has its home and its copies of the artifacts."""

    def __init__(self, conninfo: str, server: Server, url: str, folder: Path) -> None:
        self._conninfo, self._server, self._url, self._folder = conninfo, server, url, folder

    def do(self, host: str, work: Callable[..., None], *args: Any) -> ForkServerProcess:
        """A process on a host that opens the store and works on it; started."""
        where = (self._conninfo, self._folder / host, self._url)
        return started(_on_host, self._server.variables, where, work, args)

    def settings(self, host: str) -> Settings:
        return _settings(self._conninfo, self._folder / host, self._url)


def _settings(conninfo: str, home: Path, url: str) -> Settings:
    return load_settings(
        run_store_mode="postgres", postgres_dsn=conninfo, home=home, artifacts_url=url, bars=""
    )


def _on_host(
    variables: dict[str, str],
    where: tuple[str, Path, str],
    work: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    os.environ.update(variables)
    with open_workspace(_settings(*where)) as workspace:
        work(workspace, *args)


def refresh_at_once(
    workspace: Workspace,
    source: StaticSource,
    partitions: Sequence[Partition],
    together: Barrier | None,
) -> None:
    """Refresh once all hosts have opened the store."""
    if together is not None:
        together.wait(LIMIT_S)
    reports = refresh(workspace, source, partitions)
    assert not any(report.failed for report in reports.values())


def ended(*processes: ForkServerProcess) -> None:
    """Wait for processes, none of which may have failed."""
    for process in processes:
        process.join(LIMIT_S)
    assert [process.exitcode for process in processes] == [0] * len(processes)


@pytest.fixture(params=BUCKETS)
def hosts(
    request: pytest.FixtureRequest,
    fresh_store: Callable[[], Workspace],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Hosts:
    server: Server = request.getfixturevalue(f"{request.param}_server")
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    conninfo = fresh_store().database.conninfo
    return Hosts(conninfo, server, server.new_url(), tmp_path / "hosts")


def objects(artifacts: ArtifactStore) -> set[str]:
    """What is stored, named by its content; what names a store is its own."""
    return {file.uri for file in artifacts.stored()} - {ROOT_ID_FILE}


def unsound(workspace: Workspace) -> list[str]:
    """Artifacts that rows point to and that are gone or damaged."""
    found = []
    for uri in sorted(referenced(workspace)):
        if PurePosixPath(uri).suffix:
            is_sound = workspace.artifacts.sound_files(uri) == [uri]
        else:
            is_sound = workspace.artifacts.is_intact(uri)
        found += [] if is_sound else [uri]
    return found


def test_hosts_that_refresh_at_once_leave_what_one_leaves(
    hosts: Hosts, fresh_store: Callable[[], Workspace]
) -> None:
    straight = fresh_store()
    refresh(straight, market_without(3), SOME)
    before = objects(straight.artifacts)
    refresh(straight, MARKET, SOME)
    both = barrier(2)
    same = (market_without(3), SOME, both)
    ended(*(hosts.do(name, refresh_at_once, *same) for name in ("one", "other")))
    with open_workspace(hosts.settings("third")) as third:
        assert objects(third.artifacts) == before
        killed = hosts.do("one", refresh_at_once, MARKET, HALVES[0], both)
        other = hosts.do("other", refresh_at_once, MARKET, HALVES[1], both)
        until(lambda: scalar(third.database, NEWER))
        killed.kill()
        killed.join()
        ended(other)
        ended(hosts.do("other", refresh_at_once, MARKET, SOME, None))
        assert_same(contents(third), contents(straight))
        assert unsound(third) == []


# Whether the first assets have features of the last days.
NEWER = """
    SELECT count(*) FROM dataset_versions JOIN dim_assets USING (id)
    WHERE last_ts >= '2025-12-31' AND dataset = 'features' AND symbol IN ('A', 'B')
"""


@pytest.mark.chaos
def test_hosts_of_which_one_is_killed_again_and_again_leave_what_one_leaves(
    hosts: Hosts, judge: Judge
) -> None:
    rng, kills = random_of("two hosts"), 20
    with open_workspace(hosts.settings("third")) as third:
        for n in range(kills):
            market = n % 2
            killed, other = (
                hosts.do(name, refresh_at_once, MARKETS[market], PARTITIONS, None)
                for name in ("one", "other")
            )
            killed.join(rng.uniform(0, 10))
            killed.kill()
            ended(other)
            assert_same(contents(third), judge.expected[market])
            assert unsound(third) == []


def ask(workspace: Workspace, together: Barrier) -> None:
    """Execute a spec that no refresh has stored."""
    together.wait(LIMIT_S)
    run_of(workspace)


def run_of(workspace: Workspace) -> RunResult:
    found = execute(workspace, load_settings(bars=""), SPEC, "quant")
    assert isinstance(found, RunResult)
    return found


SPEC = RunSpec.model_validate(
    {"symbol": "S-ALPHA", "timeframe": "1W", "strategy": "ema", "params": {"fast": 7, "slow": 30}}
)


def test_hosts_that_ask_the_same_at_once_share_one_run(
    hosts: Hosts, fresh_store: Callable[[], Workspace]
) -> None:
    both = barrier(2)
    ended(*(hosts.do(name, ask, both) for name in ("one", "other")))
    alone = fresh_store()
    expected = run_of(alone)
    with open_workspace(hosts.settings("third")) as third:
        found = run_of(third)
        assert found.run_id == expected.run_id
        assert found.result_fingerprint == expected.result_fingerprint
        assert_same(contents(third), contents(alone))
        assert unsound(third) == []


def read_over_and_over(workspace: Workspace, expected: Contents, over: Event) -> None:
    """Compare all that is stored with what is expected until told to end, and once after."""
    while True:
        is_last = over.is_set()
        assert_same(contents(workspace), expected)
        if is_last:
            return


@pytest.mark.slow
def test_retention_on_one_host_takes_nothing_from_readers_and_writers_on_others(
    hosts: Hosts, fresh_store: Callable[[], Workspace]
) -> None:
    straight = fresh_store()
    refresh(straight, MARKET, SOME)
    expected, over = contents(straight), event()
    late = datetime.now(UTC) + timedelta(days=400)  # all files were written long before
    with open_workspace(hosts.settings("one")) as one:
        refresh(one, market_without(3), SOME)
        refresh(one, MARKET, SOME)
        writer = hosts.do("other", rebuild_over_and_over, over)
        reader = hosts.do("third", read_over_and_over, expected, over)
        removed = 0
        for _ in range(3):
            removed += sum(r.files for r in retain(one, days=90, now=late).files.values())
        over.set()
        ended(writer, reader)
        assert removed > 0
        assert_same(contents(one), expected)
        assert unsound(one) == []


def rebuild_over_and_over(workspace: Workspace, over: Event) -> None:
    """Compute and write all again until told to end."""
    while not over.is_set():
        refresh(workspace, MARKET, SOME, rebuild=True)
