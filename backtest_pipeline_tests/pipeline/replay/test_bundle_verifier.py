"""A bundle's metrics follow from its trades and equity, and a forged one is noticed."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.replay import bundle_verifier
from backtest_pipeline.pipeline.replay.export import bundle_files
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.efficiency import judged
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.metrics.metrics import (
    FAMILY_METRICS,
    METRIC_NAMES,
    METRICS_VERSION,
)
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import refresh, until
from backtest_pipeline_tests.pipeline.walking_process import MARKET as WALKED
from backtest_pipeline_tests.pipeline.walking_process import PARTITIONS as TO_WALK
from backtest_pipeline_tests.pipeline.walking_process import walk
from backtest_pipeline_tests.sql import column, execute_sql, scalar

CONFIG = SimulationConfig(
    direction=Direction.BOTH, risk_free=0.0001, stops=StopRules(stop_loss=0.05)
)
PARTITIONS = (
    *(Partition("S-ALPHA", tf) for tf in ("4H", "1D", "1W", "1M_CAL")),
    Partition("S-MU", "3D"),
)


@pytest.fixture(scope="module")
def stored(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Bars shorter and longer than a day, marked daily and at their closes alone; walk-forwards."""
    for database in database_like(template, "backtest"):
        workspace = Workspace(database, ArtifactStore(tmp_path_factory.mktemp("forged")))
        refresh(workspace, until("2026-01-01"), PARTITIONS, CONFIG)
        refresh(workspace, WALKED, TO_WALK[:1])
        walk(workspace, TO_WALK[:1])
        yield workspace


@pytest.fixture(scope="module")
def files(stored: Workspace) -> dict[str, bytes]:
    return bundle_files(stored, _busiest(stored))


def _busiest(stored: Workspace) -> UUID:
    return scalar(
        stored,
        "SELECT run_id FROM backtest_metrics ORDER BY trade_count DESC, run_id LIMIT 1",
    )


def _forged(
    files: dict[str, bytes], name: str, change: Callable[[bytes], bytes]
) -> dict[str, bytes]:
    """The bundle with a changed file, and hashes that fit."""
    changed = {**files, name: change(files[name])}
    manifest = json.loads(files[bundle_verifier.MANIFEST])
    manifest["files"][name]["sha256"] = hashlib.sha256(changed[name]).hexdigest()
    changed[bundle_verifier.MANIFEST] = json.dumps(manifest).encode()
    seal = hashlib.sha256(changed[bundle_verifier.MANIFEST]).hexdigest().encode()
    return {**changed, bundle_verifier.SEAL: seal}


def _with_value(data: bytes, column: str, row: int, value: float) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    values = table[column].to_pylist()
    values[row] = value
    at = table.column_names.index(column)
    sink = io.BytesIO()
    pq.write_table(table.set_column(at, column, pa.array(values, table[column].type)), sink)
    return sink.getvalue()


def _with_json(data: bytes, value: Any, *path: str) -> bytes:
    whole = json.loads(data)
    inner = whole
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(whole).encode()


def test_every_metric_of_every_run_follows_from_its_bundle(stored: Workspace) -> None:
    runs = column(stored, "SELECT run_id FROM backtest_runs WHERE status = 'completed'")
    assert len(runs) > 30
    assert set(column(stored, "SELECT sampling FROM backtest_metrics")) == {"daily", "bars"}
    assert set(column(stored, "SELECT split FROM backtest_runs")) == {"full", "walk_forward"}
    defined: set[str] = set()
    for run_id in runs:
        found = bundle_files(stored, run_id)
        assert bundle_verifier.problems_of(found) == []
        metrics = bundle_verifier.metrics_of(found)
        assert metrics.keys() == set(METRIC_NAMES)
        defined |= {name for name, value in metrics.items() if value is not None}
    assert defined == set(METRIC_NAMES)


def test_the_verifier_computes_the_metrics_of_this_version() -> None:
    assert bundle_verifier.METRICS_VERSION == METRICS_VERSION
    assert set(bundle_verifier.LEDGER) == {metric.name for metric in FAMILY_METRICS}


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_a_metric_that_was_forged_and_hashed_again_is_named(
    files: dict[str, bytes], name: str
) -> None:
    listed = pq.read_table(io.BytesIO(files[bundle_verifier.METRICS]))["metric"].to_pylist()
    forged = _forged(
        files,
        bundle_verifier.METRICS,
        lambda data: _with_value(data, "value", listed.index(name), 9.99),
    )
    (problem,) = bundle_verifier.problems_of(forged)
    assert problem.startswith(f"metrics.parquet: {name} is 9.99, but trades and equity give ")


@pytest.mark.parametrize(
    "path",
    [
        ("metrics", "sharpe"),
        ("significance", "psr"),
        ("results", "summary", "total_return"),
        ("results", "trades"),
    ],
)
def test_figures_of_the_run_that_were_forged_are_named(
    files: dict[str, bytes], path: tuple[str, ...]
) -> None:
    forged = _forged(files, "run.json", lambda data: _with_json(data, 77, *path))
    (problem,) = bundle_verifier.problems_of(forged)
    assert problem.startswith(f"run.json, {path[0]}: ")
    assert "is 77, but" in problem


@pytest.mark.parametrize(
    ("name", "values"), [("monthly_returns.parquet", "return"), ("equity.parquet", "drawdown")]
)
def test_series_beside_the_fingerprint_that_were_forged_are_named(
    files: dict[str, bytes], name: str, values: str
) -> None:
    forged = _forged(files, name, lambda data: _with_value(data, values, 3, -0.77))
    (problem,) = bundle_verifier.problems_of(forged)
    assert problem.startswith(f"{name}: ")
    assert "is -0.77, but" in problem


def test_a_run_whose_row_was_edited_is_not_exported(workspace: Workspace) -> None:
    refresh(workspace, until("2026-01-01"), PARTITIONS[1:2], CONFIG)
    run_id = _busiest(workspace)
    for change, named in {
        "backtest_metrics SET sharpe = 9.99": "sharpe is 9.99",
        "backtest_metrics SET psr = 0.99": "psr is 0.99",
        "backtest_runs SET results = jsonb_set(results, '{summary,total_return}', '77')": (
            "results: total_return is 77"
        ),
    }.items():
        execute_sql(workspace, f"UPDATE {change} WHERE run_id = :id", id=run_id)
        with pytest.raises(ArtifactCorrupt, match=f"has changed since it was stored.*{named}"):
            bundle_files(workspace, run_id)


def test_figures_of_the_ledger_are_dated(stored: Workspace, files: dict[str, bytes]) -> None:
    manifest = json.loads(files[bundle_verifier.MANIFEST])
    query = "SELECT deflated_at FROM backtest_metrics WHERE run_id = :id"
    at = scalar(stored, query, id=_busiest(stored))
    assert manifest["ledger_as_of"][:19] == at.isoformat()[:19]


def test_metrics_of_another_version_are_not_judged_by_this_one(files: dict[str, bytes]) -> None:
    older = _forged(
        files, "run.json", lambda data: _with_json(data, 1, "provenance", "metrics_version")
    )
    assert bundle_verifier.problems_of(older) == []
    assert not bundle_verifier.is_proven(older)
    assert bundle_verifier.verdict(older).startswith("NOT PROVEN: ")
    assert "metrics NOT recomputed" in bundle_verifier.verdict(older)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("efficiency", 2.5),
        ("test_sharpe", 9.9),
        ("n_judged", 99),
        ("verdict", "passed"),
        ("reason", "too good"),
    ],
)
def test_a_walk_forward_s_forged_summary_is_named(
    stored: Workspace, name: str, value: object
) -> None:
    run_id = scalar(
        stored,
        "SELECT run_id FROM walk_forward_runs WHERE verdict <> 'passed' ORDER BY run_id LIMIT 1",
    )
    files = bundle_files(stored, run_id)
    assert bundle_verifier.problems_of(files) == []
    said = bundle_verifier.verdict(files)
    assert "figures in folds.json NOT recomputed" in said
    assert said.endswith("n_walk_forwards, declared_at and threshold of the verdict NOT proven")
    forged = _forged(files, "run.json", lambda data: _with_json(data, value, "walk_forward", name))
    (problem,) = bundle_verifier.problems_of(forged)
    assert problem.startswith(f"run.json, walk_forward: {name} is {value}, but the folds")


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("n_walk_forwards", 0.145, "a whole number of at least 1"),
        ("n_walk_forwards", 0, "a whole number of at least 1"),
        ("n_walk_forwards", True, "a whole number of at least 1"),
        ("threshold", -9, "a number of at least 0"),
        ("threshold", "low", "a number of at least 0"),
    ],
)
def test_what_a_verdict_takes_as_given_has_bounds(
    stored: Workspace, name: str, value: object, needed: str
) -> None:
    files = bundle_files(stored, scalar(stored, "SELECT min(run_id::text) FROM walk_forward_runs"))
    forged = _forged(files, "run.json", lambda data: _with_json(data, value, "walk_forward", name))
    (problem,) = bundle_verifier.problems_of(forged)
    assert problem == f"run.json, walk_forward: {name} is {value}, and must be {needed}"


_PSRS = [None, 0.0, 0.93, 0.95, 0.9949, 0.995, 1.0]


@pytest.mark.parametrize("n", [0, 4, 5, 12])
@pytest.mark.parametrize("sharpes", [(-0.5, 1.0), (0.0, 1.0), (2.0, 1.0), (1.0, 0.9), (1.0, -2.0)])
def test_the_verdict_on_a_walk_forward_and_its_reason_are_the_product_s(
    sharpes: tuple[float, float], n: int
) -> None:
    train, test = sharpes if n else (None, None)
    ratio = test / train if train and test is not None and train > 0 else None
    for psr in _PSRS:
        for n_walk_forwards in (1, 10):
            given = n_walk_forwards, 0.6
            found = judged(train, test, n, math.nan if psr is None else psr, *given)
            said = bundle_verifier._walk_forward_verdict(ratio, train, n, psr, *given)
            assert said == (found.verdict.value, found.reason)


def test_a_walk_forward_whose_folds_or_summary_were_taken_away_is_noticed(
    stored: Workspace,
) -> None:
    files = bundle_files(stored, scalar(stored, "SELECT min(run_id::text) FROM walk_forward_runs"))
    without = {name: data for name, data in files.items() if name != bundle_verifier.FOLDS}
    manifest = json.loads(files[bundle_verifier.MANIFEST])
    del manifest["files"][bundle_verifier.FOLDS]
    without[bundle_verifier.MANIFEST] = json.dumps(manifest).encode()
    for forged in (
        _forged(without, "run.json", lambda data: data),
        _forged(files, "run.json", lambda data: _with_json(data, None, "walk_forward")),
    ):
        (problem,) = bundle_verifier.problems_of(forged)
        assert problem == (
            "run.json and folds.json: one tells of a walk-forward, and the other does not"
        )
