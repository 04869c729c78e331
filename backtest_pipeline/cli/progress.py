"""Progress of a command on stderr: bars on a terminal, lines anywhere else."""

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

SILENCE_S = 1.5  # seconds without output after which a command looks hung


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

    def print_when_silent() -> None:
        while not ended.wait(0.1):
            lines.print_if_silent()

    printer = Thread(target=print_when_silent, name="progress", daemon=True)
    printer.start()
    try:
        yield lines
    finally:
        ended.set()
        printer.join()


@dataclass
class StageLines:
    """Prints a line when a stage starts and ends, and while a long stage is silent.

    Attributes:
        write: prints a line.
        clock: a monotonic clock, seconds.
    """

    write: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _stage: str = ""
    _done: int = 0
    _total: int = 0
    _began: float = 0.0
    _printed: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._began = self._printed = self.clock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            if stage != self._stage or done < self._done:
                self._began = self.clock()
                if done < total:
                    self._print(f"{stage}: started, {total} to do")
            elif done == self._done:
                return
            self._stage, self._done, self._total = stage, done, total
            if done == total:
                self._print(f"{stage}: {done} of {total} done in {self._seconds()}")

    def print_if_silent(self) -> None:
        """Print the current progress if nothing was printed for `SILENCE_S`."""
        with self._lock:
            if self.clock() - self._printed < SILENCE_S:
                return
            if self._done < self._total:
                self._print(f"{self._stage}: {self._done} of {self._total} after {self._seconds()}")
            else:
                self._print(f"working, {self._seconds()} since {self._stage or 'the start'}")

    def _seconds(self) -> str:
        return f"{self.clock() - self._began:.1f} s"

    def _print(self, line: str) -> None:
        self._printed = self.clock()
        self.write(line)
