"""Dagster's daemon, as a process that says in a line that it waits for the code server.

An edited strategy has the code server started again. Meanwhile every sensor and schedule fails to
reach it, each with a long traceback, and goes on by itself afterwards. So does a backfill, which
Dagster would otherwise mark failed.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
import sysconfig
import time
import traceback
import warnings
from pathlib import Path

_NAMES = ("SensorDaemon", "SchedulerDaemon", "AssetDaemon", "BackfillDaemon")
# Of ticks; whatever else fails, such as the launch of a run, is shown.
_TICK_FAILED = "caught an error"
# Of a connection that nobody accepts, or that has ended; a server that hangs has another one.
_NOBODY_LISTENS = "gRPC Error code: UNAVAILABLE"
_QUIET_S = 60.0
# Without it, a backfill under way fails where the code server is not there when Dagster looks.
_BACKFILLS_WAIT = "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"


class WaitsForCodeServer(logging.Filter):
    """Makes one line a minute of ticks that fail as nobody listens where the code server did."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record; an error of that kind is shown without its traceback."""
        error = record.exc_info[1] if record.exc_info else None
        is_told = _TICK_FAILED in record.getMessage() and _NOBODY_LISTENS in "".join(
            traceback.format_exception(error)
        )
        if not is_told:
            return True
        now = time.monotonic()
        if now - self._said_at < _QUIET_S:
            return False
        self._said_at = now
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args, record.exc_info = (
            "the code server is not there; what needs it waits until it is started again",
            (),
            None,
        )
        return True


def ignore_unreachable_locations() -> None:
    """Leave out Dagster's warnings that nobody listens where the code server did.

    It loads the location again once somebody does; any other failure to load it is shown.
    """
    message = f"(?s)Error loading repository location .*{_NOBODY_LISTENS}"
    warnings.filterwarnings("ignore", message=message)


def daemon_command(workspace: Path) -> tuple[str, ...]:
    """The command line of the daemon of a workspace."""
    script = str(Path(sysconfig.get_path("scripts")) / "dagster-daemon")
    options = ("run", "-w", str(workspace), "--log-level", "warning")
    return (sys.executable, "-m", __name__, script, *options)


if __name__ == "__main__":
    os.environ.setdefault(_BACKFILLS_WAIT, "1")
    ignore_unreachable_locations()
    quiet = WaitsForCodeServer()  # one for all: they fail together
    for name in _NAMES:
        logging.getLogger(f"dagster.daemon.{name}").addFilter(quiet)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
