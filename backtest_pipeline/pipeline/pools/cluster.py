"""Workers of a Dask cluster that exists already, by the address of its scheduler.

What Dask promises is not relied on: a worker may die or freeze, a result may be lost on its way,
and with the scheduler goes all that it knows. Whatever does not answer is done again; each piece of
work stores its result whole or not at all, and storing it twice is like storing it once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from threading import Lock, Thread
from typing import Any, TypeAlias, TypeVar, cast

from distributed import Client, Future, KilledWorker
from distributed.client import ClosedClientError

from backtest_pipeline.market.errors import PoolUnavailable, WorkerLost, WorkGivenUp
from backtest_pipeline.pipeline.pools.environment import (
    ANNOUNCED,
    PRELOAD,
    differing,
    name_of,
    surroundings,
)
from backtest_pipeline.pipeline.pools.pool_process import (
    Order,
    call,
    give_up,
    require_strategies,
)
from backtest_pipeline.pipeline.pools.tls import is_foreign, security_of
from backtest_pipeline.pipeline.pools.work_pool import PoolWork
from backtest_pipeline.pipeline.versions import all_signals_code
from backtest_pipeline.storage.settings import Settings

A = TypeVar("A")
R = TypeVar("R")

_MOST_THREADS = 256
_MOST_LOSSES = 10
"""How often a piece of work is sent: what breaks the connection each time would do so for ever."""
_CONNECT_S, _LOOK_S, _WAIT_S, _TELL_S = 10.0, 5.0, 0.5, 3.0
_START = "start scheduler and workers, or set BACKTEST_POOL=inline"
_OF_THE_WORK = "error"
"""Status of a piece of work that raised something; any other that has no result was lost."""

_OF_A_CLOSED_CLIENT = (AttributeError, RuntimeError)
"""What a client raises that is closed while it is asked: it has no scheduler, or no event loop."""

_log = logging.getLogger(__name__)


_Workers: TypeAlias = Mapping[str, Mapping[str, Any]]
"""What a scheduler knows of its workers, by address."""


class _Lost(Exception):
    """The connection to the scheduler is lost, and the scheduler may have forgotten the work."""


def _tell_to_give_up(
    client: Client, sent: Mapping[str, Future[Any]], usable: Callable[[_Workers], list[str]]
) -> None:
    try:
        client.cancel(list(sent.values()), force=True)
        client.run(give_up, list(sent), workers=usable(workers_known(client)), on_error="ignore")
    except (OSError, ClosedClientError, *_OF_A_CLOSED_CLIENT) as error:
        if isinstance(error, _OF_A_CLOSED_CLIENT) and client.status != "closed":
            raise
        _log.warning("the workers could not be told to stop, and end what they do: %s", error)


def workers_known(client: Client) -> _Workers:
    """What the scheduler knows of its workers now, by address.

    `Client.scheduler_info` would give what it knew earlier where it does not answer.

    Raises:
        OSError, ClosedClientError: where it does not answer, or the client is closed; TimeoutError
            where the connection stands, and the scheduler is frozen or far too busy.
    """
    try:
        about = cast(Any, client).sync(
            cast(Any, client.scheduler).identity, n_workers=-1, callback_timeout=_LOOK_S
        )
    except _OF_A_CLOSED_CLIENT as error:
        if client.status == "running":
            raise
        raise ClosedClientError("the connection to the scheduler is closed") from error
    return cast(_Workers, about["workers"])


class Cluster:
    """The workers of a cluster that have the same code, packages and store as this process."""

    is_here = False
    most_threads = _MOST_THREADS

    def __init__(self, settings: Settings, store_id: Callable[[], str | None]) -> None:
        """Connects to nothing yet; `store_id` reads what names the store."""
        self._settings, self._store_id = settings, store_id
        self._connecting, self._looking, self._sending = Lock(), Lock(), Lock()
        self._client: Client | None = None
        self._sent: dict[str, Future[Any]] = {}
        self._abandonments = 0
        self._seen_at = 0.0
        self._warned = False

    @property
    def size(self) -> int:
        return max(1, len(self._seen()[1]))

    def require_strategies(self) -> None:
        """See that a worker knows the strategies that this process knows.

        Raises:
            PoolUnavailable: if there is no worker, or it is gone before it answers.
            ConfigurationError: where it knows others; all work would fail there.
        """
        client, workers = self._seen()
        for worker in workers[:1]:
            try:
                client.run(require_strategies, all_signals_code(), workers=[worker])
            except OSError as error:
                raise PoolUnavailable(f"the worker at {worker} does not answer: {error}") from error

    @cached_property
    def _known(self) -> Mapping[str, str]:
        return surroundings(self._settings, self._store_id())

    def do(self, work: PoolWork[A, R], item: A) -> R:
        if work.elsewhere is None:
            return work.here(item)
        begun_at = self._abandonments
        losses = 0
        while True:
            order = Order.of(work.elsewhere, item)
            try:
                return self._answer(order, work.name, begun_at)
            except _Lost as error:
                if self._abandonments > begun_at:
                    raise WorkGivenUp(
                        f"{work.name}: the run was ended before it was done"
                    ) from error
                losses += 1
                if losses == _MOST_LOSSES:
                    raise PoolUnavailable(
                        f"{work.name}: it was sent to the scheduler at "
                        f"{self._settings.pool_address} {losses} times, and lost each time "
                        f"({error}); the scheduler's log says why"
                    ) from error
                _log.warning("%s: %s; it is sent again", work.name, error)
                time.sleep(_WAIT_S)
            except KilledWorker as error:
                raise WorkerLost(
                    f"{work.name}: one worker after the other died of it ({error}); their logs say "
                    "whether they ran out of memory, and fewer workers a host have more of it"
                ) from error

    def abandon(self) -> None:
        with self._sending:
            self._abandonments += 1
            sent = dict(self._sent)
        client = self._client
        if client is None or not sent:
            return
        # A worker that is frozen does not answer, and nobody waits for it.
        telling = Thread(target=_tell_to_give_up, args=[client, sent, self._usable], daemon=True)
        telling.start()
        telling.join(_TELL_S)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(TimeoutError):  # of a scheduler that does not hear it
                client.close(timeout=_CONNECT_S)

    def _answer(self, order: Order[A, R], name: str, begun_at: int) -> R:
        client = self._connected(begun_at)
        with self._sending:
            if self._abandonments > begun_at:
                raise _Lost("the run was ended")
            try:
                future = client.submit(
                    call,
                    order,
                    key=f"{name}-{order.ticket}",
                    pure=False,
                    retries=0,
                    resources={name_of(self._known): 1},
                )
            except (OSError, ClosedClientError) as error:
                raise _Lost(str(error)) from error
            if not self._sent:
                # Nobody has looked since the last piece of work: how long workers are away counts
                # from now.
                self._seen_at = time.monotonic()
            self._sent[order.ticket] = future
        try:
            return cast(R, self._result(client, future, begun_at))
        finally:
            with self._sending:
                del self._sent[order.ticket]

    def _result(self, client: Client, future: Future[R], begun_at: int) -> R:
        while True:
            had_ended = future.done()
            try:
                return future.result(timeout=_LOOK_S)
            except Exception as error:
                if future.status == _OF_THE_WORK:
                    if isinstance(error, TimeoutError) and not had_ended:
                        continue  # of the wait: the work raised something after it
                    raise
                is_waiting = isinstance(error, TimeoutError) and future.status != "cancelled"
                if not is_waiting or client.status != "running" or self._abandonments > begun_at:
                    raise _Lost(f"{type(error).__name__} {error}".strip()) from error
            self._look_for_workers(client)

    def _look_for_workers(self, client: Client) -> None:
        """Raise PoolUnavailable if no worker that could do the work was seen for long."""
        if not self._looking.acquire(blocking=False):
            return  # another thread looks, which may take it a while
        try:
            now = time.monotonic()
            if now - self._seen_at < _LOOK_S:
                return
            why = self._why_none(client)
            if why is None:
                self._seen_at, self._warned = now, False
                return
            self._warn_once(why)
            if now - self._seen_at > max(self._settings.store_retry_s, 2 * _LOOK_S):
                raise PoolUnavailable(why)
        except (OSError, ClosedClientError):
            return  # whoever waits notices it
        finally:
            self._looking.release()

    def _why_none(self, client: Client) -> str | None:
        """Why there is no worker that could do the work; None where there is one."""
        try:
            workers = workers_known(client)
        except TimeoutError:
            return f"the scheduler at {self._settings.pool_address} does not answer; {_START}"
        return None if self._usable(workers) else self._none_usable(workers)

    def _warn_once(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("%s; waiting up to %g s", why, self._settings.store_retry_s)

    def _seen(self) -> tuple[Client, list[str]]:
        """The client, and the workers that it knows now, once a scheduler answers."""
        is_gone = False
        while True:
            client = self._connected(self._abandonments, look=is_gone)
            try:
                return client, self._usable(workers_known(client))
            except (OSError, ClosedClientError):
                # Since then: wait for it, however lately it had a worker.
                is_gone = True

    def _connected(self, begun_at: int, *, look: bool = False) -> Client:
        """The client, connected to a scheduler that has a worker for us, or lately had.

        Args:
            begun_at: how often work had been abandoned when this one began.
            look: ask it, however lately it had a worker.

        Raises:
            _Lost: where the work was abandoned since it had begun.
            PoolUnavailable: if there is none within `BACKTEST_STORE_RETRY_S`.
        """
        until = time.monotonic() + self._settings.store_retry_s
        with self._connecting:
            while self._abandonments == begun_at:
                try:
                    client = self._running()
                    if client is not None:
                        if self._seen_at and not look:
                            return client
                        workers = workers_known(client)
                        if self._usable(workers):
                            self._seen_at, self._warned = time.monotonic(), False
                            return client
                        why = self._none_usable(workers)
                    else:
                        address = self._settings.pool_address
                        why = f"the scheduler at {address} does not answer; {_START}"
                except (OSError, ClosedClientError) as error:
                    why = (
                        f"the scheduler at {self._settings.pool_address} cannot be reached "
                        f"({str(error) or type(error).__name__}); {_START}"
                    )
                    if is_foreign(error):
                        # Waiting does not change a certificate.
                        raise PoolUnavailable(
                            f"the scheduler at {self._settings.pool_address} and this process do "
                            "not trust each other's certificates: BACKTEST_POOL_TLS is not a copy "
                            f"of the scheduler's folder ({error})"
                        ) from error
                if time.monotonic() > until:
                    raise PoolUnavailable(why)
                self._warn_once(why)
                time.sleep(_WAIT_S)
        raise _Lost("the run was ended")

    def _running(self) -> Client | None:
        """A client that is connected; None while it is connecting again."""
        if self._client is not None and self._client.status == "closed":
            self._client = None
        if self._client is None:
            self._seen_at = 0.0  # by another client, perhaps of another scheduler
            address = self._settings.pool_address
            self._client = Client(
                address,
                security=security_of(address, self._settings.pool_tls),
                timeout=_CONNECT_S,
                set_as_default=False,
            )
        return self._client if self._client.status == "running" else None

    def _usable(self, workers: _Workers) -> list[str]:
        """Addresses of those that are like this process."""
        wanted = name_of(self._known)
        return [address for address, about in workers.items() if wanted in about["resources"]]

    def _none_usable(self, others: _Workers) -> str:
        address = self._settings.pool_address
        if not others:
            return f"the scheduler at {address} has no workers; {_START}"
        reasons = []
        for name, about in list(others.items())[:3]:
            announced = about.get(ANNOUNCED)
            differs = (
                "; ".join(differing(self._known, announced))
                if announced
                else f"it was not started with --preload {PRELOAD}"
            )
            reasons.append(f"{name}: {differs}")
        return (
            f"none of the {len(others)} workers of {address} has the code, packages and store of "
            f"this process: {'. '.join(reasons)}. Give all the same image, "
            "packages and store, or set BACKTEST_POOL=inline"
        )
