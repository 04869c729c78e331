"""What runs in a warm worker process: one spec after the other, each with a result as JSON.

What goes back is bytes or a `Failure`, never an exception: an exception drags along all that it
holds, and whoever reads it has to run code to build it.
"""

from __future__ import annotations

import gc
import logging
import os
from contextlib import ExitStack
from multiprocessing import parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Annotated

from pydantic import Field, TypeAdapter
from threadpoolctl import threadpool_limits

from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.specs import ExecutableSpec
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.service.problems import Failure, failure_of
from backtest_pipeline.storage.logs import about, set_up_logging
from backtest_pipeline.storage.settings import Settings

_log = logging.getLogger(__name__)
_specs: TypeAdapter[ExecutableSpec] = TypeAdapter(
    Annotated[ExecutableSpec, Field(discriminator="kind")]
)


class _Store:
    """The store of this process: opened when it is first needed, and again where that failed."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self._opened = settings, ExitStack()
        self._workspace: Workspace | None = None

    def workspace(self) -> Workspace:
        if self._workspace is None:
            self._workspace = self._opened.enter_context(open_workspace(self.settings))
        return self._workspace


_store: _Store | None = None


def begin(settings: Settings) -> None:
    """Make this process a worker of the process that started it, and end it with that one."""
    global _store
    set_up_logging("json", logging.INFO)
    # There is a worker for each core: threads of matrices would only wait for each other.
    threadpool_limits(1)
    _store = _Store(settings)
    Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def warm() -> None:
    """Open the store and compute something small, so that the first request is not slow."""
    from backtest_pipeline.service import warm

    assert warm  # noqa: S101 - importing it is what warms
    with _opened().workspace().database.arrow():
        pass  # its driver takes longest to open
    gc.freeze()  # what is loaded by now stays for good: it need not be looked through each time


def execute_json(spec: str, user: str, request_id: str) -> bytes | Failure:
    """Execute one spec.

    Args:
        spec: with its kind, as JSON.
        user: name of the caller.
        request_id: the request id, for the log.

    Returns:
        The result as JSON, or what is wrong.
    """
    with about(request=request_id):
        try:
            store = _opened()
            given = _specs.validate_json(spec)
            found = execute(store.workspace(), store.settings, given, user)
            return found.model_dump_json().encode()
        except Exception as error:  # whatever it is, it ends this request and no other
            failure = failure_of(error)
            if failure.problem().kind.status >= 500:
                _log.exception("a request was not computed")
            return failure


def _opened() -> _Store:
    assert _store is not None, "a worker begins before it executes"  # noqa: S101
    return _store


def _end_with_parent() -> None:
    """A killed server cannot end its workers, and would leave them with its port and its store."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
