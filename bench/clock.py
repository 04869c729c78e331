"""Wall time of a piece of work, and CPU time of this process and the PostgreSQL server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Seconds:
    """A reading of all clocks, or the difference of two.

    Attributes:
        wall: elapsed.
        own: processor time (user and system) of this process and the ones it started.
        server: the same of the embedded PostgreSQL server and its backends.
    """

    wall: float = 0.0
    own: float = 0.0
    server: float = 0.0

    @property
    def cpu(self) -> float:
        """Processor time of all processes."""
        return self.own + self.server

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.own + other.own, self.server + other.server)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.own - other.own, self.server - other.server)


class Clock:
    """Reads the time of this process and of the embedded server below `home`, if any."""

    def __init__(self, home: Path | None = None) -> None:
        self._server = None
        if home is not None:
            number = (home / "postgres" / "data" / "postmaster.pid").read_text().split("\n", 1)[0]
            self._server = psutil.Process(int(number))
        self._own = psutil.Process()

    def now(self) -> Seconds:
        """A reading of all clocks; only differences are meaningful."""
        server = 0.0
        if self._server is not None:
            # Backends that have ended count with the postmaster that waited for them.
            living = self._server.children()
            server = sum(map(_processor_time, (self._server, *living)))
        return Seconds(time.perf_counter(), _processor_time(self._own), server)

    @contextmanager
    def timing(self, into: dict[str, Seconds], name: str) -> Iterator[None]:
        """Add what the block takes to `into[name]`."""
        begin = self.now()
        yield
        into[name] = into.get(name, Seconds()) + (self.now() - begin)


def _processor_time(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system
