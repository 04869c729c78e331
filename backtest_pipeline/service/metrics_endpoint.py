"""`/metrics`: counters of the store, the job queue, and this process.

Store numbers are the same in every process, so dashboards take their maximum over instances. Those
of this process (`http_*`, `process_*`, `backtest_pool_*`) are its own, and are still reported when
the store is down: then `backtest_store_up` is 0.
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
_MOST_ZEROS = 64  # most series to report as 0 before their first count, so that a rise is seen
_DONE = ("stored", "unchanged")

_log = logging.getLogger(__name__)
# Separate threads: metrics matter most when all others are busy.
_threads = anyio.CapacityLimiter(2)


class Load(Protocol):
    """The load of a worker pool."""

    @property
    def size(self) -> int:
        """Workers."""
        ...

    @property
    def busy(self) -> int:
        """Requests that have a worker."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        ...


class Metrics:
    """The metrics of one process of the service.

    `router` has the route; `app.add_middleware(MetricsMiddleware, metrics=metrics)` measures
    requests. On shutdown the router waits for the threads that use the store; close it after that.
    """

    def __init__(
        self, workspace: Callable[[], Workspace], load: Callable[[], Load] | None = None
    ) -> None:
        """Register the metrics; nothing is read yet.

        Args:
            workspace: returns the open store at each scrape; may raise a BacktestError.
            load: returns the worker pool; None if this process has none.
        """
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests_total",
            "Requests with a response",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Seconds until the end of the response; for event streams, until its start",
            ("route", "method"),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "http_requests_in_flight", "Requests being processed", registry=self.registry
        )
        if load is not None:
            self._add_pool_gauges(load)
        self._store = _StoreCollector(workspace)
        self.registry.register(self._store)
        self.router = APIRouter(lifespan=self._threads_of_an_app)
        self.router.add_api_route(
            "/metrics", self._scrape, methods=["GET"], response_class=Response, tags=["operations"]
        )

    def _add_pool_gauges(self, load: Callable[[], Load]) -> None:
        def add(name: str, about: str, read: Callable[[Load], int]) -> None:
            gauge = Gauge(f"backtest_pool_{name}", about, registry=self.registry)
            gauge.set_function(lambda: read(load()))

        add("workers", "Worker processes", lambda pool: pool.size)
        add("busy", "Busy workers", lambda pool: pool.busy)
        add("waiting", "Requests waiting for a worker", lambda pool: pool.waiting)

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


class MetricsMiddleware:
    """ASGI middleware that counts and times requests by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, streamed = time.perf_counter(), 500, None

        async def send_and_note(message: Message) -> None:
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
                await self._app(scope, receive, send_and_note)
        finally:
            seconds = time.perf_counter() - began if streamed is None else streamed
            # The path as declared: each id in a path would be a series of its own.
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            method = scope["method"] if scope["method"] in _METHODS else OTHER
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels(route, method).observe(seconds)


class _StoreCollector(Collector):
    """Reads the store at each scrape, and measures its size from time to time.

    Both run in separate threads: a database that hangs delays a scrape by a few seconds, and is not
    read again before it has responded.
    """

    def __init__(self, workspace: Callable[[], Workspace]) -> None:
        self._workspace = workspace
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="scrape")
        self._measurer = ThreadPoolExecutor(1, thread_name_prefix="measure")
        self._reading: Future[tuple[list[Count], Queue]] | None = None
        self._measuring: Future[None] | None = None
        self._given_up = Event()

    def close(self) -> None:
        """Stop reading the store and wait for the threads that use it."""
        self._given_up.set()
        for threads in (self._reader, self._measurer):
            threads.shutdown(cancel_futures=True)

    def collect(self) -> Iterator[Family]:
        try:
            counts, queue = self._read()
        except Exception as error:  # the other metrics are still reported, and an alert sees the 0
            _log.error("scrape without the store: %s", str(error) or "it took too long")
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


_UP = "1 if the store could be read at this scrape"


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


def _plain(metric: StoreMetric, values: dict[tuple[tuple[str, str], ...], float]) -> Family:
    names = sorted(metric.labels)
    zeros = list(product(*((*metric.labels[name], OTHER) for name in names)))
    samples = dict.fromkeys(zeros if len(zeros) <= _MOST_ZEROS else (), 0.0)
    samples |= {tuple(value for _, value in labels): n for labels, n in values.items()}
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=names)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


def _histogram(
    metric: StoreMetric, values: dict[str, dict[tuple[tuple[str, str], ...], float]]
) -> Family:
    bounds = [*map(str, metric.buckets), INFINITE]
    counts = {labels[0][1]: n for labels, n in values[f"{metric.name}_bucket"].items()}
    up_to = accumulate(counts.get(bound, 0.0) for bound in bounds)
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
    about = "When a computation of this kind last succeeded; absent if none has"
    samples = [((kind,), at) for kind, at in sorted(last.items())]
    return _gauge("backtest_last_success_timestamp_seconds", about, samples, ("kind",))


def _of_jobs(queue: Queue) -> Iterator[Family]:
    by_status = [((status,), float(queue.by_status.get(status, 0))) for status in _JOB_STATES]
    yield _gauge("backtest_jobs", "Jobs by status", by_status, ("status",))
    yield _gauge(
        "backtest_jobs_oldest_pending_seconds",
        "Seconds since the oldest pending job was submitted",
        [((), queue.oldest_pending_s)],
    )
    yield _gauge(
        "backtest_leases_expired",
        "Running jobs, and runs of commands, whose process missed its heartbeat",
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
