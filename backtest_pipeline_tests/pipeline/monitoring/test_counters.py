"""Work is counted where it ends, and counting never undoes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from importlib import import_module
from inspect import getmembers, isclass
from pathlib import Path
from pkgutil import walk_packages
from threading import Event
from typing import Any

import pytest

from backtest_pipeline.market.errors import (
    BacktestError,
    InvalidInput,
    NotEnoughBars,
    StoreUnavailable,
    UnknownName,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline import stages
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.monitoring.counters import (
    LATENCIES,
    METRICS,
    SOURCES,
    STAGES,
    bucket_of,
    count_stage,
    counted,
)
from backtest_pipeline.pipeline.monitoring.store_size import measure_storage
from backtest_pipeline.pipeline.specs import RunSpec, SweepSpec
from backtest_pipeline.pipeline.stage import Outcome, StageReport, Status
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.binance.client import BinanceClient
from backtest_pipeline.sources.binance.source import BinanceBars
from backtest_pipeline.sources.cache import BarCache
from backtest_pipeline.sources.choose import exchange_of
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.storage.tables.counts import read_counts
from backtest_pipeline_tests.sources.fake_binance import FakeBinance, generated
from backtest_pipeline_tests.sql import execute_sql


def _numbers(workspace: Workspace, name: str = "") -> dict[str, float]:
    """Value by name and labels, as Prometheus would write them."""
    with workspace.database.begin() as connection:
        counts = read_counts(connection)
    return {
        ",".join([count.key.name, *(f"{k}={v}" for k, v in count.key.labels)]): count.value
        for count in counts
        if count.key.name.startswith(name)
    }


def test_a_run_is_counted_with_its_source_timeframe_and_seconds(workspace: Workspace) -> None:
    for _ in range(2):
        with counted(workspace, "run", exchange="sample", timeframe="1D"):
            pass
    found = _numbers(workspace)
    assert 0 < found.pop("backtest_run_latency_seconds_sum") < 2 * 0.025
    assert found == {
        "backtest_run_jobs_total,exchange=sample,timeframe=1D": 2,
        "backtest_run_latency_seconds_bucket,le=0.025": 2,
    }


def test_a_search_tells_its_combinations_and_a_walk_forward_its_verdict(
    workspace: Workspace,
) -> None:
    with counted(workspace, "optimize") as tally:
        tally.combinations = 120
    with counted(workspace, "walkforward") as tally:
        tally.overfit = 1
    with counted(workspace, "portfolio"):
        pass
    found = _numbers(workspace)
    assert {name: n for name, n in found.items() if name.endswith("_total")} == {
        "optimizer_runs_total": 1,
        "optimizer_combinations_total": 120,
        "walkforward_runs_total": 1,
        "overfitting_detected_total": 1,
        "portfolio_runs_total": 1,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotEnoughBars("12 bars"), "NOT_ENOUGH_BARS"),
        (UnknownName("asset", "X", ["Y"]), "BAD_SYMBOL"),
        (BacktestError("engine"), "RUN_ENGINE_ERROR"),
        (ZeroDivisionError(), "other"),
    ],
)
def test_an_error_is_counted_by_its_code_goes_on_and_its_seconds_are_not(
    workspace: Workspace, error: Exception, code: str
) -> None:
    with pytest.raises(type(error)), counted(workspace, "run", exchange="x", timeframe="1 d"):
        raise error
    assert _numbers(workspace) == {
        "backtest_run_jobs_total,exchange=other,timeframe=other": 1,
        f"backtest_run_errors_total,code={code}": 1,
    }


def test_answers_are_counted_by_their_kind(workspace: Workspace) -> None:
    settings = load_settings(bars="")
    asked: dict[str, Any] = {
        "symbol": "S-ALPHA",
        "timeframe": "1W",
        "strategy": "ema_crossover",
    }
    one = RunSpec(**asked, params={"fast": 5, "slow": 9})
    many = SweepSpec(**asked, params={"fast": [5, 6], "slow": [9, 10]})
    unknown = RunSpec(**{**asked, "symbol": "NOBODY"}, params={"fast": 5, "slow": 9})
    for question in (one, many):
        execute(workspace, settings, question, "me")
    with pytest.raises(UnknownName):
        execute(workspace, settings, unknown, "me")
    found = _numbers(workspace)
    assert {name: n for name, n in found.items() if name.partition(",")[0].endswith("_total")} == {
        "backtest_run_jobs_total,exchange=sample,timeframe=1W": 2,
        "backtest_run_errors_total,code=BAD_SYMBOL": 1,
        "optimizer_runs_total": 1,
        "optimizer_combinations_total": 4,
    }


def test_an_interrupt_is_not_counted(workspace: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt), counted(workspace, "run"):
        raise KeyboardInterrupt
    assert _numbers(workspace) == {}


@pytest.fixture
def refusing(workspace: Workspace) -> Iterator[None]:
    """The table is away until the block ends, as after a backup that lacks it."""
    execute_sql(workspace, "ALTER TABLE metric_counts RENAME TO hidden")
    yield
    execute_sql(workspace, "DROP TABLE IF EXISTS hidden")


def test_a_count_that_fails_leaves_the_work_done_is_logged_and_comes_with_the_next(
    workspace: Workspace, refusing: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), counted(workspace, "optimize") as tally:
        tally.combinations = 7
    (logged,) = caplog.records
    assert "hidden" not in logged.getMessage()
    assert "metric_counts" in logged.getMessage()
    execute_sql(workspace, "ALTER TABLE hidden RENAME TO metric_counts")
    with counted(workspace, "optimize") as tally:
        tally.combinations = 5
    found = _numbers(workspace)
    assert found["optimizer_combinations_total"] == 12
    assert found["optimizer_runs_total"] == 2
    assert found["backtest_count_failures_total"] == 1


def test_a_store_that_was_found_away_is_not_asked_again_for_the_count(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoreUnavailable), counted(workspace, "portfolio"):
        raise StoreUnavailable("gone")
    assert _numbers(workspace) == {}
    assert "was unavailable a moment ago" in caplog.text
    with counted(workspace, "portfolio"):
        pass
    found = _numbers(workspace)
    assert found["backtest_run_errors_total,code=STORE_UNAVAILABLE"] == 1
    assert found["portfolio_runs_total"] == 2


def test_partitions_of_a_stage_are_counted_by_what_became_of_them(workspace: Workspace) -> None:
    outcomes = tuple(
        Outcome(Partition("A", tf), status)
        for tf, status in [("1D", Status.STORED), ("2D", Status.STORED), ("3D", Status.FAILED)]
    )
    count_stage(workspace, StageReport("signals", outcomes))
    assert _numbers(workspace) == {
        "backtest_stage_partitions_total,stage=signals,status=stored": 2,
        "backtest_stage_partitions_total,stage=signals,status=failed": 1,
    }


def test_what_the_cache_of_bars_had_is_counted_and_a_read_without_cache_is_no_miss(
    workspace: Workspace, tmp_path: Path
) -> None:
    now_ms = int(time.time() * 1000)
    bars = generated("1d", 30, first_ms=now_ms - 29 * 86_400_000)
    with FakeBinance({("BTCUSDT", "1d"): bars}, now_ms).serving() as exchange:
        client = BinanceClient(exchange.url)
        source = BinanceBars(client, BarCache(tmp_path / "cache"), [timeframe("1D")])
        for _ in range(3):
            assert SourceReader(source, ["BTCUSDT"], workspace).bars.panels
        without = BinanceBars(client, None, [timeframe("1D")])
        assert SourceReader(without, ["BTCUSDT"], workspace).bars.panels
    assert _numbers(workspace) == {
        "backtest_cache_hits_total": 2,
        "backtest_cache_misses_total": 1,
    }


def test_the_room_that_is_taken_is_measured_by_one_and_not_all_the_time(
    workspace: Workspace,
) -> None:
    files = {"bars/1D/a.parquet": 5, "runs/1D/x/manifest.json": 3, "lost+found": 2}
    for name, size in files.items():
        path = workspace.artifacts.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (workspace.artifacts.root / "bars" / ".unfinished-1").write_bytes(b"x")
    assert measure_storage(workspace)
    assert not measure_storage(workspace)
    found = {n.partition("kind=")[2]: v for n, v in _numbers(workspace, "backtest_storage").items()}
    assert (found["bars"], found["runs"], found["other"], found["features"]) == (5, 3, 2, 0)
    assert found["database"] > 1e6


def test_a_measurement_that_is_given_up_writes_nothing_down(workspace: Workspace) -> None:
    (workspace.artifacts.root / "bars").mkdir(parents=True)
    (workspace.artifacts.root / "bars" / "a.parquet").write_bytes(b"x")
    given_up = Event()
    given_up.set()
    assert not measure_storage(workspace, given_up=given_up)
    assert not _numbers(workspace, "backtest_storage_bytes")


def test_a_value_falls_in_the_bucket_that_is_not_below_it() -> None:
    latency = LATENCIES["run"]
    assert [bucket_of(latency, s) for s in (0, 0.025, 0.0251, 1e9)] == [
        *("0.025", "0.025", "0.05"),
        "+Inf",
    ]


def test_every_source_that_can_be_chosen_has_a_label() -> None:
    for path, label in (("", "sample"), ("/bars", "files"), ("binance:1h", "binance")):
        assert exchange_of(path) == label
        assert label in SOURCES


def test_every_stage_has_a_label() -> None:
    modules = [
        import_module(found.name) for found in walk_packages(stages.__path__, f"{stages.__name__}.")
    ]
    classes = [kind for module in modules for _, kind in getmembers(module, isclass)]
    found = {vars(kind).get("name") for kind in classes if hasattr(kind, "stale")}
    assert found == set(STAGES)


def test_names_and_labels_are_as_prometheus_wants_them_and_bounded() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert all(len(values) < 100 for values in metric.labels.values())
    assert issubclass(NotEnoughBars, InvalidInput)
