"""What is counted of the work, whichever process does it: the catalogue of metrics, and counting.

    with counted(workspace, "run", exchange=exchange_of(bars), timeframe=tf) as tally:
        ...                           # an error that leaves the block is counted by its code
        tally.combinations = 120      # of a search

The numbers are rows of the store: service, commands and Dagster add to the same ones, and they
outlive all of them. Label values are of closed sets: what is in none of them is `other`.
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
from backtest_pipeline.market.timeframes import TIMEFRAMES
from backtest_pipeline.pipeline.stage import StageReport, Status
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import SourceBars
from backtest_pipeline.sources.choose import EXCHANGES
from backtest_pipeline.storage.run_tables.retention import KINDS
from backtest_pipeline.storage.tables.counts import Key, add_counts

Kind = Literal["run", "walkforward", "portfolio", "optimize"]
OTHER = "other"
EXTERNAL = "external"
SOURCES = ("sample", "files", *EXCHANGES, EXTERNAL)
STAGES = ("bars", "features", "signals", "backtests", "walk_forward")
_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
INFINITE = "+Inf"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreMetric:
    """One metric of the store.

    Attributes:
        name: as Prometheus has it.
        kind: how it is read.
        help: what it counts.
        labels: the values that each label may have, besides `other`.
        buckets: upper bounds of a histogram, in the unit of its name.
    """

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


def _latency(name: str, of: str) -> StoreMetric:
    return StoreMetric(
        name, "histogram", f"Seconds that {of} took to be answered", buckets=_SECONDS
    )


_RUNS: dict[Kind, StoreMetric] = {
    "run": StoreMetric(
        "backtest_run_jobs_total",
        "counter",
        "Backtests of one strategy that ended, well or not",
        {"exchange": SOURCES, "timeframe": tuple(TIMEFRAMES)},
    ),
    "walkforward": StoreMetric(
        "walkforward_runs_total", "counter", "Walk-forwards that ended, well or not"
    ),
    "portfolio": StoreMetric(
        "portfolio_runs_total", "counter", "Portfolios that ended, well or not"
    ),
    "optimize": StoreMetric("optimizer_runs_total", "counter", "Searches that ended, well or not"),
}
LATENCIES: dict[Kind, StoreMetric] = {
    "run": _latency("backtest_run_latency_seconds", "backtests"),
    "walkforward": _latency("walkforward_latency_seconds", "walk-forwards"),
    "portfolio": _latency("portfolio_latency_seconds", "portfolios"),
    "optimize": _latency("optimizer_latency_seconds", "searches"),
}
_ERRORS = StoreMetric(
    "backtest_run_errors_total",
    "counter",
    "Backtests, walk-forwards, portfolios and searches that failed, by the code of the error",
    {"code": CODES},
)
_OVERFIT = StoreMetric(
    "overfitting_detected_total", "counter", "Strategies that a walk-forward called overfit"
)
_COMBINATIONS = StoreMetric(
    "optimizer_combinations_total", "counter", "Combinations of parameters that were evaluated"
)
_HITS = StoreMetric(
    "backtest_cache_hits_total", "counter", "Series of an exchange that were all kept"
)
_MISSES = StoreMetric(
    "backtest_cache_misses_total", "counter", "Series that the exchange had to be asked for"
)
PARTITIONS = StoreMetric(
    "backtest_stage_partitions_total",
    "counter",
    "Partitions that Dagster's stages went over, by what became of them",
    {"stage": STAGES, "status": tuple(status.value for status in Status)},
)
_UNCOUNTED = StoreMetric(
    "backtest_count_failures_total",
    "counter",
    "Counts that could not be stored at once, but later on",
)
STORAGE = StoreMetric(
    "backtest_storage_bytes",
    "gauge",
    "Bytes of the database, and of artifacts by the folder that they are in",
    {"kind": ("database", *KINDS)},
)
MEASUREMENTS = StoreMetric(
    "backtest_storage_measurements_total", "counter", "Times that the bytes were measured"
)
METRICS = (
    *_RUNS.values(),
    *LATENCIES.values(),
    *(_ERRORS, _OVERFIT, _COMBINATIONS, _HITS, _MISSES, PARTITIONS, _UNCOUNTED),
    *(STORAGE, MEASUREMENTS),
)


@dataclass
class Tally:
    """What only the work itself knows.

    Attributes:
        combinations: of parameters that were evaluated.
        overfit: strategies that a walk-forward called overfit.
    """

    combinations: int = 0
    overfit: int = 0


@contextmanager
def counted(
    workspace: Workspace, kind: Kind, *, exchange: str = "", timeframe: str = ""
) -> Iterator[Tally]:
    """Count the answer to one question, when the block ends: that it was asked, how long it took.

    An error is counted by its code, one that is not ours as `other`, and its time is not: what
    fails at once would hide how slow the rest is. An interrupt is not counted at all.

    Args:
        workspace: the store that counts; outside of the block's own transactions.
        kind: of question.
        exchange: `sources.choose.exchange_of` the bars of a run, or EXTERNAL.
        timeframe: of a run.
    """
    labels = {"exchange": exchange, "timeframe": timeframe} if kind == "run" else {}
    asked = {key_of(_RUNS[kind], labels): 1.0}
    tally, began = Tally(), time.perf_counter()
    try:
        yield tally
    except Exception as error:
        code = error.code if isinstance(error, BacktestError) else OTHER
        failed = {**asked, key_of(_ERRORS, {"code": code}): 1.0}
        # A store that has just been found away is not asked for a second time.
        count(workspace, failed, later=isinstance(error, StoreUnavailable))
        raise
    latency, seconds = LATENCIES[kind], time.perf_counter() - began
    took = {
        Key(f"{latency.name}_bucket", (("le", bucket_of(latency, seconds)),)): 1.0,
        Key(f"{latency.name}_sum"): seconds,
    }
    told = {key_of(_COMBINATIONS): tally.combinations, key_of(_OVERFIT): tally.overfit}
    count(workspace, asked | took | told)


def count_stage(workspace: Workspace, report: StageReport) -> None:
    """Count what became of the partitions of a stage."""
    by_status = {
        key_of(PARTITIONS, {"stage": report.stage, "status": status}): n
        for status, n in report.counts.items()
    }
    count(workspace, by_status)


def count_look_ups(workspace: Workspace, read: SourceBars) -> None:
    """Count what a read of an exchange found in the cache of bars."""
    count(workspace, {key_of(_HITS): read.hits, key_of(_MISSES): read.misses})


def key_of(metric: StoreMetric, labels: Mapping[str, str] | None = None) -> Key:
    """The row of a metric's value; a label value that the metric does not know is `other`."""
    found = labels or {}
    known = {
        name: found[name] if found.get(name) in values else OTHER
        for name, values in metric.labels.items()
    }
    return Key(metric.name, tuple(sorted(known.items())))


def bucket_of(metric: StoreMetric, value: float) -> str:
    """The bound of the bucket that a value falls in."""
    at = bisect_left(metric.buckets, value)
    return str(metric.buckets[at]) if at < len(metric.buckets) else INFINITE


_later: dict[str, dict[Key, float]] = {}
_lock = Lock()


def count(workspace: Workspace, added: Mapping[Key, float], *, later: bool = False) -> None:
    """Add to the numbers of the store; never raises, as what is counted has been done.

    What cannot be stored is logged as an error, counted as a failure to count, and stored with the
    next count of this process. Where the store's answer to a commit was lost, that counts twice.

    Args:
        workspace: the store.
        added: numbers; those of 0 are left out.
        later: do not ask the store now.
    """
    database = workspace.database
    with _lock:
        waiting = _sum(_later.pop(database.conninfo, {}), added)
    if not waiting:
        return
    try:
        if later:
            raise StoreUnavailable(f"{database.where} has just been found away")
        with database.begin() as connection:
            add_counts(connection, waiting)
    except Exception as error:
        logger.error("%d numbers are counted with the next that are: %s", len(waiting), error)
        failure = {key_of(_UNCOUNTED): 1.0}
        with _lock:
            since = _later.get(database.conninfo, {})
            _later[database.conninfo] = _sum(_sum(since, waiting), failure)


def _sum(one: Mapping[Key, float], other: Mapping[Key, float]) -> dict[Key, float]:
    keys = {*one, *other}
    total = {key: one.get(key, 0.0) + other.get(key, 0.0) for key in keys}
    return {key: n for key, n in total.items() if n > 0}
