"""`/metrics`: what the store counts, the jobs that wait, and what this process serves.

Numbers of the store are the same whichever process is asked, so that dashboards take their
maximum over instances. Those of this process (`http_*`, `process_*`, `backtest_pool_*`) are its
own, and remain where the store is away: then `backtest_store_up` is 0.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import accumulate, product
from threading import Event
from typing import Protocol

import anyio
import anyio.to_thread
from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backtest_pipeline.pipeline.monitoring.counters import (
    INFINITE,
    LATENCIES,
    MEASUREMENTS,
    METRICS,
    OTHER,
    PARTITIONS,
    StoreMetric,
)
from backtest_pipeline.pipeline.monitoring.store_size import EVERY_S, measure_storage
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.tables.counts import Count, Queue, read_counts, read_queue

_JOB_STATES = ("pending", "running", "completed", "failed", "cancelled")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_NO_ROUTE = "unmatched"
_SCRAPE_S = 4.0  # Prometheus gives a scrape ten seconds
_MOST_ZEROS = 64  # series that are told before anything was counted, so that a rise is seen
_DONE = ("stored", "unchanged")

_log = logging.getLogger(__name__)
# Threads of its own: metrics are wanted most when all others are taken.
_threads = anyio.CapacityLimiter(2)


class Load(Protocol):
    """What a pool of workers has to do."""

    @property
    def size(self) -> int:
        """Workers."""
        ...

    @property
    def inside(self) -> int:
        """Requests that have a worker or wait for one."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        ...


class Metrics:
    """The metrics of one process of the service.

    `router` has the route, and `app.add_middleware(Measured, metrics=metrics)` measures requests.
    When the application ends, the router waits for the threads that use the store: what includes
    it closes the store after that.
    """

    def __init__(
        self, workspace: Callable[[], Workspace], load: Callable[[], Load] | None = None
    ) -> None:
        """Nothing is asked yet.

        Args:
            workspace: the open store; asked at each scrape, and may raise a BacktestError.
            load: the workers; None where this process has none.
        """
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests_total",
            "Requests that were answered",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Seconds until a request was answered; of a stream of events until it began",
            ("route", "method"),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "http_requests_in_flight", "Requests that are being answered", registry=self.registry
        )
        if load is not None:
            self._tell_load(load)
        self._store = _StoreCollector(workspace)
        self.registry.register(self._store)
        self.router = APIRouter(lifespan=self._threads_of_an_app)
        self.router.add_api_route(
            "/metrics", self._scrape, methods=["GET"], response_class=Response, tags=["operations"]
        )

    def _tell_load(self, load: Callable[[], Load]) -> None:
        def told(name: str, about: str, read: Callable[[Load], int]) -> None:
            gauge = Gauge(f"backtest_pool_{name}", about, registry=self.registry)
            gauge.set_function(lambda: read(load()))

        told("workers", "Worker processes", lambda pool: pool.size)
        told("busy", "Workers that compute", lambda pool: pool.inside - pool.waiting)
        told("waiting", "Requests that wait for a worker", lambda pool: pool.waiting)

    @asynccontextmanager
    async def _threads_of_an_app(self, _: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(self._store.close)

    async def _scrape(self) -> Response:
        """All metrics, in Prometheus' text format."""
        text = await anyio.to_thread.run_sync(generate_latest, self.registry, limiter=_threads)
        return Response(text, media_type=CONTENT_TYPE_LATEST)


class Measured:
    """ASGI middleware that counts requests by the route that they matched."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, streamed = time.perf_counter(), 500, None

        async def watched(message: Message) -> None:
            nonlocal status, streamed
            if message["type"] == "http.response.start":
                status = message["status"]
                if (b"content-type", b"text/event-stream") in [
                    (name.lower(), value[:17]) for name, value in message["headers"]
                ]:
                    streamed = time.perf_counter() - began
            await send(message)

        try:
            with self._metrics.in_flight.track_inprogress():
                await self._app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - began if streamed is None else streamed
            # The path as it was declared: one with an id in it would be a series of its own.
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            method = scope["method"] if scope["method"] in _METHODS else OTHER
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels(route, method).observe(seconds)


class _StoreCollector(Collector):
    """Reads the store at each scrape, and has its size measured where that is long ago.

    Both happen in threads of their own: a database that neither answers nor refuses costs a scrape
    some seconds and no more, and is not asked again before it has.
    """

    def __init__(self, workspace: Callable[[], Workspace]) -> None:
        self._workspace = workspace
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="scrape")
        self._measurer = ThreadPoolExecutor(1, thread_name_prefix="measure")
        self._reading: Future[tuple[list[Count], Queue]] | None = None
        self._measuring: Future[None] | None = None
        self._given_up = Event()

    def close(self) -> None:
        """Return when no thread uses the store; for good, as that is closed next."""
        self._given_up.set()
        for threads in (self._reader, self._measurer):
            threads.shutdown(cancel_futures=True)

    def collect(self) -> Iterator[Family]:
        try:
            counts, queue = self._read()
        except Exception as error:  # whatever it is, the rest is told, and an alert sees the 0
            _log.error("the store is not part of this scrape: %s", str(error) or "it took too long")
            yield _gauge("backtest_store_up", _UP, [((), 0.0)])
            return
        yield _gauge("backtest_store_up", _UP, [((), 1.0)])
        yield from _of_store(counts)
        yield from _of_jobs(queue)
        self._measure_if_due(counts)

    def _read(self) -> tuple[list[Count], Queue]:
        if self._reading is None or self._reading.done():
            self._reading = self._reader.submit(_read_store, self._workspace)
        return self._reading.result(_SCRAPE_S)

    def _measure_if_due(self, counts: Sequence[Count]) -> None:
        last = [c.updated_at.timestamp() for c in counts if c.key.name == MEASUREMENTS.name]
        is_due = not last or time.time() - last[0] > EVERY_S
        if is_due and (self._measuring is None or self._measuring.done()):
            self._measuring = self._measurer.submit(_measure, self._workspace, self._given_up)


_UP = "Whether the store answered this scrape"


def _read_store(workspace: Callable[[], Workspace]) -> tuple[list[Count], Queue]:
    with workspace().database.begin() as connection:
        return read_counts(connection), read_queue(connection)


def _measure(workspace: Callable[[], Workspace], given_up: Event) -> None:
    try:
        measure_storage(workspace(), given_up=given_up)
    except Exception:
        _log.exception("the size of the store could not be measured")


def _of_store(counts: Sequence[Count]) -> Iterator[Family]:
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    for count in counts:
        values[count.key.name][count.key.labels] = count.value
    for metric in METRICS:
        if metric.kind == "histogram":
            yield _histogram(metric, values)
        else:
            yield _plain(metric, values[metric.name])
    yield _last_successes(counts)


def _plain(metric: StoreMetric, found: dict[tuple[tuple[str, str], ...], float]) -> Family:
    names = sorted(metric.labels)
    zeros = list(product(*((*metric.labels[name], OTHER) for name in names)))
    samples = dict.fromkeys(zeros if len(zeros) <= _MOST_ZEROS else (), 0.0)
    samples |= {tuple(value for _, value in labels): n for labels, n in found.items()}
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=names)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


def _histogram(
    metric: StoreMetric, values: dict[str, dict[tuple[tuple[str, str], ...], float]]
) -> Family:
    bounds = [*map(str, metric.buckets), INFINITE]
    found = {labels[0][1]: n for labels, n in values[f"{metric.name}_bucket"].items()}
    up_to = accumulate(found.get(bound, 0.0) for bound in bounds)
    family = HistogramMetricFamily(metric.name, metric.help)
    family.add_metric(
        (), list(zip(bounds, up_to, strict=True)), values[f"{metric.name}_sum"].get((), 0.0)
    )
    return family


def _last_successes(counts: Sequence[Count]) -> Family:
    last: dict[str, float] = {}
    ends = {f"{metric.name}_sum": kind for kind, metric in LATENCIES.items()}
    for count in counts:
        labels = dict(count.key.labels)
        kind = ends.get(count.key.name)
        if count.key.name == PARTITIONS.name and labels["stage"] == "backtests":
            kind = "refresh" if labels["status"] in _DONE else None
        if kind is not None:
            last[kind] = max(last.get(kind, 0.0), count.updated_at.timestamp())
    about = "When something of a kind last ended well; of one that never did there is none"
    samples = [((kind,), at) for kind, at in sorted(last.items())]
    return _gauge("backtest_last_success_timestamp_seconds", about, samples, ("kind",))


def _of_jobs(queue: Queue) -> Iterator[Family]:
    by_status = [((status,), float(queue.by_status.get(status, 0))) for status in _JOB_STATES]
    yield _gauge("backtest_jobs", "Jobs that there are, by status", by_status, ("status",))
    yield _gauge(
        "backtest_jobs_oldest_pending_seconds",
        "Seconds since the oldest pending job was asked for",
        [((), queue.oldest_pending_s)],
    )
    yield _gauge(
        "backtest_leases_expired",
        "Running jobs whose worker was not heard of in time",
        [((), float(queue.expired_leases))],
    )


def _gauge(
    name: str,
    about: str,
    samples: Sequence[tuple[tuple[str, ...], float]],
    labels: Sequence[str] = (),
) -> Family:
    family = GaugeMetricFamily(name, about, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
