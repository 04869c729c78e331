"""Operational metrics: their catalogue, and counting them in whichever process does the work.

    with counted(workspace, "run", exchange=exchange_of(bars), timeframe=tf) as tally:
        ...                           # an error that leaves the block is counted by its code
        tally.combinations = 120      # combinations evaluated by a sweep

The numbers are rows in the database: service, commands and Dagster add to the same rows, which
outlive the processes. Each label has a closed set of values; any other value counts as `other`.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

from backtest_pipeline.market.errors import CODES, BacktestError, StoreUnavailable
from backtest_pipeline.market.timeframes import SHIPPED
from backtest_pipeline.pipeline.stage import StageReport, Status
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import SourceBars
from backtest_pipeline.sources.choose import EXCHANGES
from backtest_pipeline.storage.run_tables.retention import KINDS
from backtest_pipeline.storage.tables.counts import Key, add_counts, set_values

Kind = Literal["run", "walkforward", "portfolio", "optimize"]
OTHER = "other"
EXTERNAL = "external"
SOURCES = ("sample", "files", *EXCHANGES, EXTERNAL)
STAGES = ("bars", "features", "columns", "signals", "backtests", "walk_forward")
_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
INFINITE = "+Inf"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreMetric:
    """One operational metric.

    Attributes:
        name: its name in Prometheus.
        kind: counter, histogram or gauge.
        help: what it measures.
        labels: the values of each label, besides `other`.
        buckets: upper bounds of a histogram's buckets, in the unit of its name.
    """

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


def _latency(name: str, of: str) -> StoreMetric:
    return StoreMetric(name, "histogram", f"Seconds that {of} took", buckets=_SECONDS)


_RUNS: dict[Kind, StoreMetric] = {
    "run": StoreMetric(
        "backtest_run_jobs_total",
        "counter",
        "Backtests of one strategy that ended, successfully or not",
        {"exchange": SOURCES, "timeframe": SHIPPED},
    ),
    "walkforward": StoreMetric(
        "walkforward_runs_total", "counter", "Walk-forwards that ended, successfully or not"
    ),
    "portfolio": StoreMetric(
        "portfolio_runs_total", "counter", "Portfolios that ended, successfully or not"
    ),
    "optimize": StoreMetric(
        "optimizer_runs_total", "counter", "Sweeps that ended, successfully or not"
    ),
}
LATENCIES: dict[Kind, StoreMetric] = {
    "run": _latency("backtest_run_latency_seconds", "backtests"),
    "walkforward": _latency("walkforward_latency_seconds", "walk-forwards"),
    "portfolio": _latency("portfolio_latency_seconds", "portfolios"),
    "optimize": _latency("optimizer_latency_seconds", "sweeps"),
}
_ERRORS = StoreMetric(
    "backtest_run_errors_total",
    "counter",
    "Backtests, walk-forwards, portfolios and sweeps that failed, by error code",
    {"code": CODES},
)
_OVERFIT = StoreMetric(
    "overfitting_detected_total", "counter", "Walk-forwards with the verdict overfit"
)
_COMBINATIONS = StoreMetric(
    "optimizer_combinations_total", "counter", "Parameter combinations evaluated by sweeps"
)
_HITS = StoreMetric(
    "backtest_cache_hits_total", "counter", "Series of an exchange read entirely from the cache"
)
_MISSES = StoreMetric(
    "backtest_cache_misses_total", "counter", "Series that had to be fetched from the exchange"
)
PARTITIONS = StoreMetric(
    "backtest_stage_partitions_total",
    "counter",
    "Partitions processed by refresh stages, by outcome",
    {"stage": STAGES, "status": tuple(status.value for status in Status)},
)
_UNCOUNTED = StoreMetric(
    "backtest_count_failures_total",
    "counter",
    "Counts that could not be stored at first, but were stored later",
)
STORAGE = StoreMetric(
    "backtest_storage_bytes",
    "gauge",
    "Bytes used by the database, and by artifacts in each top-level folder",
    {"kind": ("database", *KINDS)},
)
MEASUREMENTS = StoreMetric(
    "backtest_storage_measurements_total", "counter", "Number of storage measurements"
)
ENGINE_CHECKS = StoreMetric(
    "backtest_engine_checks_total",
    "counter",
    "Runs whose orders vectorbt filled as well, by whether the results agree",
    {"verdict": ("agrees", "differs", "not_followed")},
)
ENGINE_FOLLOWED = StoreMetric(
    "backtest_engine_followed_ratio",
    "gauge",
    "Share of the current runs that vectorbt has followed, as of its last check",
)
ENGINE_DIFFERENCE = StoreMetric(
    "backtest_engine_worst_difference_ratio",
    "gauge",
    "Largest relative difference between a current run and vectorbt, as of its last check",
)
METRICS = (
    *_RUNS.values(),
    *LATENCIES.values(),
    *(_ERRORS, _OVERFIT, _COMBINATIONS, _HITS, _MISSES, PARTITIONS, _UNCOUNTED),
    *(STORAGE, MEASUREMENTS, ENGINE_CHECKS, ENGINE_FOLLOWED, ENGINE_DIFFERENCE),
)


@dataclass
class Tally:
    """Figures that only the counted work itself knows.

    Attributes:
        combinations: parameter combinations evaluated.
        overfit: 1 for a walk-forward with the verdict overfit.
        is_counted: False where nothing came of it, and somebody else does the work.
    """

    combinations: int = 0
    overfit: int = 0
    is_counted: bool = True


@contextmanager
def counted(
    workspace: Workspace, kind: Kind, *, exchange: str = "", timeframe: str = ""
) -> Iterator[Tally]:
    """Count one use case when the block ends: that it ran, and how long it took.

    An error is counted by its code, a foreign one as `other`, but not its time: quick failures
    would hide how slow the rest is. An interrupt is not counted at all.

    Args:
        workspace: the store to count in, outside of the block's own transactions.
        kind: the kind of use case.
        exchange: `sources.choose.exchange_of` of the bars of a run, or EXTERNAL.
        timeframe: timeframe of a run.
    """
    labels = {"exchange": exchange, "timeframe": timeframe} if kind == "run" else {}
    ran = {key_of(_RUNS[kind], labels): 1.0}
    tally, began = Tally(), time.perf_counter()
    try:
        yield tally
    except Exception as error:
        code = error.code if isinstance(error, BacktestError) else OTHER
        failed = {**ran, key_of(_ERRORS, {"code": code}): 1.0}
        # A store that was just found unavailable is not tried a second time.
        count(workspace, failed, later=isinstance(error, StoreUnavailable))
        raise
    if not tally.is_counted:
        return
    latency, seconds = LATENCIES[kind], time.perf_counter() - began
    took = {
        Key(f"{latency.name}_bucket", (("le", bucket_of(latency, seconds)),)): 1.0,
        Key(f"{latency.name}_sum"): seconds,
    }
    from_tally = {key_of(_COMBINATIONS): tally.combinations, key_of(_OVERFIT): tally.overfit}
    count(workspace, ran | took | from_tally)


def count_stage(workspace: Workspace, report: StageReport) -> None:
    """Count the partitions of a stage by status."""
    by_status = {
        key_of(PARTITIONS, {"stage": report.stage, "status": status}): n
        for status, n in report.counts.items()
    }
    count(workspace, by_status)


def count_look_ups(workspace: Workspace, read: SourceBars) -> None:
    """Count the cache hits and misses of a read from an exchange."""
    count(workspace, {key_of(_HITS): read.hits, key_of(_MISSES): read.misses})


def count_engine_checks(
    workspace: Workspace, by_verdict: Mapping[str, int], followed: float, worst: float
) -> None:
    """Count the runs that vectorbt has followed, and note how far all current runs are.

    Args:
        by_verdict: number of runs of this check.
        followed, worst: of all current runs, as `engine_checks.EngineAgreement` has them.
    """
    counts = {key_of(ENGINE_CHECKS, {"verdict": v}): float(n) for v, n in by_verdict.items()}
    count(workspace, counts)
    with workspace.database.begin() as connection:
        set_values(
            connection, {key_of(ENGINE_FOLLOWED): followed, key_of(ENGINE_DIFFERENCE): worst}
        )


def key_of(metric: StoreMetric, labels: Mapping[str, str] | None = None) -> Key:
    """The key of a metric's row; an unknown label value becomes `other`."""
    given = labels or {}
    known = {
        name: given[name] if given.get(name) in values else OTHER
        for name, values in metric.labels.items()
    }
    return Key(metric.name, tuple(sorted(known.items())))


def bucket_of(metric: StoreMetric, value: float) -> str:
    """The upper bound of the bucket that a value falls into."""
    at = bisect_left(metric.buckets, value)
    return str(metric.buckets[at]) if at < len(metric.buckets) else INFINITE


_later: dict[str, dict[Key, float]] = {}
_lock = Lock()


def count(workspace: Workspace, added: Mapping[Key, float], *, later: bool = False) -> None:
    """Add to the stored counts; never raises, because the counted work is already done.

    Counts that cannot be stored are logged as an error, counted as a failure, and stored with the
    next count of this process. If the response to a commit was lost, they are counted twice.

    Args:
        workspace: the open store.
        added: increments; zeros are skipped.
        later: do not try to store them now.
    """
    database = workspace.database
    with _lock:
        waiting = _sum(_later.pop(database.conninfo, {}), added)
    if not waiting:
        return
    try:
        if later:
            raise StoreUnavailable(f"{database.where} was unavailable a moment ago")
        with database.begin() as connection:
            add_counts(connection, waiting)
    except Exception as error:
        logger.error("%d counts not stored, will retry with the next: %s", len(waiting), error)
        failure = {key_of(_UNCOUNTED): 1.0}
        with _lock:
            since = _later.get(database.conninfo, {})
            _later[database.conninfo] = _sum(_sum(since, waiting), failure)


def _sum(one: Mapping[Key, float], other: Mapping[Key, float]) -> dict[Key, float]:
    keys = {*one, *other}
    total = {key: one.get(key, 0.0) + other.get(key, 0.0) for key in keys}
    return {key: n for key, n in total.items() if n > 0}
