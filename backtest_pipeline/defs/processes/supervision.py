"""Supervision of processes: what ends or hangs is started again, or all ends with an error."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from backtest_pipeline.defs.processes.watchdog import ProcessGroup
from backtest_pipeline.market.errors import ProcessLost

LOOK_S, EXAMINE_S = 0.5, 5.0
# On a busy machine Dagster takes a minute to start.
START_S, UNWELL_S, SETTLED_S = 180.0, 60.0, 60.0
MOST_FAILURES, LONGEST_PAUSE_S = 5, 16.0

_log = logging.getLogger(__name__)
Examine = Callable[[], Mapping[str, str]]
"""What is wrong with processes that do not respond as they should, by name."""


@dataclass(frozen=True)
class SupervisedProgram:
    """A program to be kept running.

    Attributes:
        name: its name, for messages.
        command: its command line.
        inherit: file descriptors that it inherits.
        needs: whether what the program needs is there; it is not started before.
        reads: says what the program reads when it starts, None while that is being changed; the
            program is started again where it has changed since.
    """

    name: str
    command: Sequence[str]
    inherit: Collection[int] = ()
    needs: Callable[[], bool] = lambda: True
    reads: Callable[[], object | None] = lambda: ()


@dataclass
class _Kept:
    """A program and its process.

    Attributes:
        failures: how often in a row the process ended soon after its start.
        due_at: when it is started (again).
        unwell_since: since when it does not respond as it should.
        has_read: what it read when it was started.
    """

    program: SupervisedProgram
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    due_at: float = 0.0
    unwell_since: float | None = None
    has_read: object | None = None

    def look(self, group: ProcessGroup, now: float) -> None:
        """Start the process if it is due, or has to read again; note its end."""
        if self.process is None:
            if now >= self.due_at and self.program.needs():
                self._start(group, now)
        elif self.process.poll() is not None:
            self._note_end(self.process.returncode, now)
        elif self.program.reads() not in (None, self.has_read):
            _log.warning("the %s is started again: what it reads has changed", self.program.name)
            self.process.kill()
            self.process.wait()
            self._start(group, now)

    def _start(self, group: ProcessGroup, now: float) -> None:
        self.has_read = self.program.reads()
        self.process = group.start(self.program.command, tuple(self.program.inherit))
        self.started_at, self.unwell_since = now, None

    def _note_end(self, code: int, now: float) -> None:
        self.process = None
        self.failures = 1 if now - self.started_at > SETTLED_S else self.failures + 1
        how = (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        )
        if self.failures > MOST_FAILURES:
            raise ProcessLost(
                f"the {self.program.name} {how}, {self.failures} times in a row soon after its "
                "start; its own messages above say why"
            )
        pause = min(LONGEST_PAUSE_S, 2.0 ** (self.failures - 1))
        self.due_at = now + pause
        _log.warning("the %s %s; it is started again in %g s", self.program.name, how, pause)

    def judge(self, wrong: str | None, now: float) -> None:
        """Kill a process that has been unwell for long; its end is noted as any other."""
        if self.process is None or wrong is None or now - self.started_at < START_S:
            self.unwell_since = None
        elif self.unwell_since is None:
            self.unwell_since = now
        elif now - self.unwell_since > UNWELL_S:
            _log.error("the %s is killed: %s", self.program.name, wrong)
            self.process.kill()


def keep_running(
    group: ProcessGroup, programs: Sequence[SupervisedProgram], examine: Examine
) -> NoReturn:
    """Keep programs running, for ever.

    Args:
        group: group of the processes.
        programs: the programs.
        examine: examines the running processes; called every few seconds. May raise an error that
            ends all.

    Raises:
        ProcessLost: where a process ends again and again, or the group's watchdog has ended.
    """
    kept = [_Kept(program) for program in programs]
    examined_at = time.monotonic()
    while True:
        if group.watchdog.poll() is not None:
            raise ProcessLost(
                "the watchdog, which ends all processes with this one, has ended; start again"
            )
        now = time.monotonic()
        for one in kept:
            one.look(group, now)
        if now - examined_at > EXAMINE_S:
            wrong = examine()
            now = examined_at = time.monotonic()
            for one in kept:
                one.judge(wrong.get(one.program.name), now)
        time.sleep(LOOK_S)
