"""Ends a group of processes when the process that started them has ended, however it ended.

It waits on a pipe of which that process alone holds the other end: the kernel closes it with the
process. It leads the group, outlives all others in it, and holds what must not be let go before.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from backtest_pipeline.market.errors import BacktestError

_TERM_S, _KILL_S = 12.0, 10.0


@dataclass(frozen=True)
class ProcessGroup:
    """Processes that end with this one: `start` adds one, and `watchdog` ends them."""

    watchdog: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[str], inherit: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Start a process of the group.

        Args:
            command: its command line.
            inherit: file descriptors that it inherits.
        """
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            pass_fds=inherit,
            process_group=self.watchdog.pid,
        )
        self._started[:] = [one for one in self._started if one.poll() is None] + [process]
        return process

    def end(self) -> None:
        """End all processes; the watchdog does so, as where this process is killed."""
        assert self.watchdog.stdin is not None  # noqa: S101  (a pipe)
        self.watchdog.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.watchdog.wait(_TERM_S + 2 * _KILL_S)
        if self.watchdog.poll() != 0:  # it was killed itself
            with suppress(ProcessLookupError):
                os.killpg(self.watchdog.pid, signal.SIGKILL)
        for process in self._started:
            process.wait()


@contextmanager
def process_group(
    environment: Mapping[str, str], folder: Path, inherit: Sequence[int] = ()
) -> Iterator[ProcessGroup]:
    """A group of processes, all ended at the end of the block or with this process.

    Args:
        environment: variables of the processes.
        folder: a folder of theirs that is deleted in the end.
        inherit: file descriptors that stay open until the last process has ended.
    """
    watchdog = subprocess.Popen(
        (sys.executable, "-m", __name__, str(folder)),
        stdin=subprocess.PIPE,
        env=environment,
        pass_fds=inherit,
        process_group=0,
    )
    group = ProcessGroup(watchdog, environment)
    try:
        yield group
    finally:
        group.end()


def _watch(folder: Path) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # As a user of the embedded server it is the last one, which stops the server.
    from backtest_pipeline.storage.postgres.embedded import embedded_server
    from backtest_pipeline.storage.settings import load_settings

    with suppress(BacktestError):  # what cannot be started need not be stopped
        settings = load_settings()
        if settings.run_store_mode == "embedded":
            embedded_server(settings.home)
    sys.stdin.buffer.read()
    os.killpg(os.getpgrp(), signal.SIGTERM)
    _wait_for_others(_TERM_S)
    for process in _others():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_for_others(_KILL_S)
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for_others(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _others() and time.monotonic() < deadline:
        time.sleep(0.2)


def _others() -> list[psutil.Process]:
    """The other processes of the group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if (
                process.pid != os.getpid()
                and os.getpgid(process.pid) == os.getpgrp()
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
