"""What ends or hangs is started again; what ends again and again ends all with an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from backtest_pipeline.defs.processes import supervision
from backtest_pipeline.defs.processes.supervision import SupervisedProgram, keep_running
from backtest_pipeline.defs.processes.watchdog import ProcessGroup, process_group
from backtest_pipeline.market.errors import ProcessLost
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.running_up import arguments

_SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


class Seen(Exception):
    """The test has seen what it waited for."""


@pytest.fixture
def group(store: Database, tmp_path: Path) -> Iterator[ProcessGroup]:
    with process_group(os.environ, tmp_path / "folder") as group:
        yield group


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for but what a test waits for."""
    for name in ("LOOK_S", "EXAMINE_S", "START_S", "UNWELL_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(supervision, name, 0.01)


def children() -> list[psutil.Process]:
    """The processes that are kept running."""
    return [one for one in psutil.Process().children() if "time.sleep(600)" in arguments(one)]


def when_another(
    done_to_the_first: Callable[[psutil.Process], None], wrong: str = ""
) -> Callable[[], Mapping[str, str]]:
    """Examines until there is another process than the first one."""
    first: list[psutil.Process] = []

    def examine() -> Mapping[str, str]:
        found = children()
        if not first and found:
            first.extend(found)
            done_to_the_first(found[0])
        if first and found and found[0].pid != first[0].pid:
            assert not first[0].is_running()
            raise Seen
        return {"sleeper": wrong} if wrong and found and found == first else {}

    return examine


def test_a_killed_process_is_started_again(group: ProcessGroup) -> None:
    with pytest.raises(Seen):
        keep_running(
            group, [SupervisedProgram("sleeper", _SLEEP)], when_another(psutil.Process.kill)
        )


def test_a_process_that_hangs_is_killed_and_started_again(group: ProcessGroup) -> None:
    with pytest.raises(Seen):
        keep_running(
            group,
            [SupervisedProgram("sleeper", _SLEEP)],
            when_another(psutil.Process.suspend, "it does not respond"),
        )


def test_a_program_is_started_again_where_what_it_reads_has_changed(
    group: ProcessGroup, caplog: pytest.LogCaptureFixture
) -> None:
    reads: list[object] = ["old"]

    def change(_: psutil.Process) -> None:
        reads[:] = [None, None, "new"]  # it is being written in between

    def read() -> object:
        return reads.pop(0) if len(reads) > 1 else reads[0]

    with pytest.raises(Seen):
        keep_running(
            group, [SupervisedProgram("sleeper", _SLEEP, reads=read)], when_another(change)
        )
    assert "the sleeper is started again: what it reads has changed" in caplog.text
    assert "ended" not in caplog.text  # or it would count as a failure


def test_what_ends_again_and_again_is_an_error(
    group: ProcessGroup, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ProcessLost, match="the broken one ended with code 3, 6 times in a row"):
        keep_running(
            group,
            [SupervisedProgram("broken one", (sys.executable, "-c", "raise SystemExit(3)"))],
            dict,
        )
    assert caplog.text.count("the broken one ended with code 3; it is started again in") == 5


def test_a_program_waits_for_what_it_needs(group: ProcessGroup, tmp_path: Path) -> None:
    needed, made = tmp_path / "needed", (tmp_path / "early", tmp_path / "late")
    touch = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); import time; time.sleep(600)"
    programs = [
        SupervisedProgram("late", (sys.executable, "-c", touch, str(made[1])), needs=needed.exists),
        SupervisedProgram("early", (sys.executable, "-c", touch, str(made[0]))),
    ]

    def examine() -> Mapping[str, str]:
        if made[0].exists() and not needed.exists():
            assert not made[1].exists()
            needed.touch()
        if made[1].exists():
            raise Seen
        return {}

    with pytest.raises(Seen):
        keep_running(group, programs, examine)


def test_a_watchdog_that_was_killed_ends_all(group: ProcessGroup) -> None:
    def examine() -> Mapping[str, str]:
        group.watchdog.kill()
        return {}

    with pytest.raises(ProcessLost, match="the watchdog"):
        keep_running(group, [SupervisedProgram("sleeper", _SLEEP)], examine)
