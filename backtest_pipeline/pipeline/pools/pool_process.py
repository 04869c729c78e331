"""Code of a process that does the work of others: its store, its warm-up, and its end.

The workspace is opened once, and kept. Between two pieces of work a worker is idle: it holds no
transaction and no lock.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from threading import Event, Lock, Thread, current_thread, main_thread
from typing import Generic, TypeVar
from uuid import uuid4

from threadpoolctl import threadpool_limits

from backtest_pipeline.market.errors import (
    ConfigurationError,
    StoreError,
    WorkGivenUp,
    without_causes,
)
from backtest_pipeline.pipeline.versions import all_signals_code
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.logs import about, job_id, request_id, run_id, set_up_logging
from backtest_pipeline.storage.postgres.embedded import release_all
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.strategies.known_strategies import given_rules, look_again, rules_known

A = TypeVar("A")
R = TypeVar("R")

_CANCEL_S = 30.0
_log = logging.getLogger(__name__)

# By its name: it runs whole backtests, and so knows what knows this module.
_WARM = "backtest_pipeline.pipeline.pools.warm"
PRELOADED = (__name__, _WARM)
"""Modules that are imported once, by the process that all workers of a host are forked from."""


class WorkerStore:
    """The store of this process: opened on first use, and retried if that fails."""

    def __init__(self, settings: Settings) -> None:
        # What a worker does is one piece of work: it hands none on to a pool of its own.
        self.settings = settings.model_copy(update={"pool": "inline", "pool_workers": 1})
        self._opened = ExitStack()
        self._workspace: Workspace | None = None

    def workspace(self, retry_s: float = 0.0) -> Workspace:
        """The store; where it is not open yet, its database is waited for so many seconds."""
        if self._workspace is None:
            opened = open_workspace(self.settings, retry_s=retry_s)
            self._workspace = self._opened.enter_context(opened)
        return self._workspace

    def close(self) -> None:
        self._opened.close()
        self._workspace = None


_store: WorkerStore | None = None


def begin(settings: Settings) -> None:
    """Initialise this process as a worker."""
    global _store
    set_up_logging(settings.log_format or "text", logging.INFO)
    if current_thread() is main_thread():
        # Ctrl-C reaches all processes of a terminal; the one that wants the work decides its end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    # There is a worker per core: BLAS threads would only compete with each other.
    threadpool_limits(1)
    _store = WorkerStore(settings)


def begin_with_parent(settings: Settings) -> None:
    """Initialise this process as a worker that exits when the process that started it is gone."""
    begin(settings)
    Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    # A worker that is idle notices it by itself, and ends before that thread could.
    Finalize(None, _leave, exitpriority=0)


def warm(retry_s: float = 0.0) -> int:
    """Open the store and compute something small, so that the first piece of work is fast.

    Args:
        retry_s: seconds to wait for an unavailable database.

    Returns:
        The id of this process.
    """
    import_module(_WARM)
    with worker_store().workspace(retry_s).database.arrow():
        pass  # its driver takes longest to open
    gc.freeze()  # what is loaded by now stays for good: it need not be looked through each time
    return os.getpid()


def worker_store() -> WorkerStore:
    """The store of this worker."""
    assert _store is not None, "a worker begins before it works"  # noqa: S101
    return _store


@dataclass(frozen=True)
class Order(Generic[A, R]):
    """A piece of work for a worker, as it is sent.

    Attributes:
        function: the work; called with the workspace of the worker and the item.
        item: what it is to be done with.
        strategies: what strategies the process that wants it done knows.
        rules: the rules of a spec that are known there, in TOML; None for none.
        ticket: names the order, to have it given up.
        ids: of the request, the job and the run that it is for, as the log shows them.
    """

    function: Callable[[Workspace, A], R]
    item: A
    strategies: str
    rules: str | None
    ticket: str
    ids: tuple[str, str, str]

    @staticmethod
    def of(function: Callable[[Workspace, A], R], item: A) -> Order[A, R]:
        """An order of this process."""
        ids = (request_id.get(), job_id.get(), run_id.get())
        return Order(function, item, all_signals_code(), given_rules(), uuid4().hex, ids)


_under_way: dict[str, Workspace] = {}
_cancelling = Lock()
_given_up: deque[str] = deque(maxlen=10_000)
"""Tickets of orders that nobody wants any more; one may arrive later than that is said."""


def call(order: Order[A, R]) -> R:
    """Do one piece of work with the workspace of this process.

    Raises:
        ConfigurationError: where this process knows other strategies than the one that ordered it.
        WorkGivenUp: where the order was given up before it began.
    """
    store = worker_store()
    opened = store.workspace(store.settings.store_retry_s)
    workspace = replace(opened, given_up=Event())
    request, job, run = order.ids
    rules = rules_known(order.rules) if order.rules else nullcontext()
    with about(request=request, job=job, run=run), rules:
        try:
            return _done(order, workspace)
        except Exception as error:
            failure = without_causes(error)
    raise failure  # outside of the handler, so that it is raised from nothing


def _done(order: Order[A, R], workspace: Workspace) -> R:
    require_strategies(order.strategies)
    _under_way[order.ticket] = workspace
    try:
        # Looked at after it is under way: who gives it up sees it here or there.
        if order.ticket in _given_up:
            raise WorkGivenUp("the run was ended before this order began")
        return order.function(workspace, order.item)
    finally:
        with _cancelling:  # a late cancel would hit the next order
            del _under_way[order.ticket]


def give_up(tickets: Sequence[str]) -> None:
    """Have this process end these orders: statements are cancelled, and none is begun later."""
    _given_up.extend(tickets)
    for ticket in tickets:
        workspace = _under_way.get(ticket)
        if workspace is not None:
            workspace.given_up.set()
            Thread(target=_cancel_statements, args=[ticket, workspace], daemon=True).start()


def _cancel_statements(ticket: str, workspace: Workspace) -> None:
    """Cancel one statement after the other until the order has ended."""
    until = time.monotonic() + _CANCEL_S
    while time.monotonic() < until:
        with _cancelling:
            if ticket not in _under_way:
                return
            try:
                workspace.database.cancel_statements()
            except StoreError as error:
                _log.warning("its statements cannot be cancelled: %s", error)
        time.sleep(0.2)


def require_strategies(wanted: str) -> None:
    """See that this process knows the same strategies as the one that has work for it.

    Files may have changed since this process or the other began: it knows either version.

    Raises:
        ConfigurationError: where it knows others.
    """
    if all_signals_code() == wanted:
        return
    look_again()
    if all_signals_code() != wanted:
        raise ConfigurationError(
            f"a worker on {os.uname().nodename} has other strategies in "
            f"{worker_store().settings.strategies_folder} than the process that it works for; "
            "give both the same files, set BACKTEST_STRATEGIES to their folder, and run it again"
        )


def _end_with_parent() -> None:
    """Exit with the parent: a killed one would leave workers behind that hold port and store.

    Nobody else is left then to stop the embedded server.
    """
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        try:
            _leave()
        finally:
            os._exit(1)


def _leave() -> None:
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        release_all()
