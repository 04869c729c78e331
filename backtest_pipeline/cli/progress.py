"""How far a command is, told on stderr: bars on a terminal, lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

Listener = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and its total."""

SILENCE_S = 1.5  # a little less than what a person may be left alone for


@contextmanager
def progress_on(console: Console) -> Iterator[Listener]:
    """A listener that shows stages on the console while the batch runs."""
    shown = _bars(console) if console.is_terminal else _lines(console)
    with shown as listener:
        yield listener


@contextmanager
def _bars(console: Console) -> Iterator[Listener]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # What else is printed must not end up on stderr: only this console is redirected.
    with Progress(*columns, console=console, redirect_stdout=False) as progress:
        tasks: dict[str, TaskID] = {}

        def listen(stage: str, done: int, total: int) -> None:
            again = stage in tasks and progress.tasks[tasks[stage]].completed > done
            if stage not in tasks or again:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield listen


@contextmanager
def _lines(console: Console) -> Iterator[Listener]:
    lines = StageLines(lambda line: console.print(line, highlight=False, markup=False))
    ended = Event()

    def keep_talking() -> None:
        while not ended.wait(0.1):
            lines.break_silence()

    talker = Thread(target=keep_talking, name="progress", daemon=True)
    talker.start()
    try:
        yield lines
    finally:
        ended.set()
        talker.join()


@dataclass
class StageLines:
    """A line when a stage begins and when it ends, and others where silence lasts too long.

    Attributes:
        write: takes a line.
        clock: seconds that only go forward.
    """

    write: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _stage: str = ""
    _done: int = 0
    _total: int = 0
    _began: float = 0.0
    _spoke: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._began = self._spoke = self.clock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            if stage != self._stage or done < self._done:
                self._began = self.clock()
                if done < total:
                    self._say(f"{stage}: begins, {total} to do")
            elif done == self._done:
                return
            self._stage, self._done, self._total = stage, done, total
            if done == total:
                self._say(f"{stage}: {done} of {total} done in {self._seconds()}")

    def break_silence(self) -> None:
        """Say where things stand, if nothing was said for `SILENCE_S`."""
        with self._lock:
            if self.clock() - self._spoke < SILENCE_S:
                return
            if self._done < self._total:
                self._say(f"{self._stage}: {self._done} of {self._total} after {self._seconds()}")
            else:
                self._say(f"working, {self._seconds()} since {self._stage or 'the start'}")

    def _seconds(self) -> str:
        return f"{self.clock() - self._began:.1f} s"

    def _say(self, line: str) -> None:
        self._spoke = self.clock()
        self.write(line)
