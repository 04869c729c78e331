"""Stored runs over HTTP where their files have changed or gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from backtest_pipeline_tests.service.conftest import QUESTION, Store
from backtest_pipeline_tests.service.problems import told

READING = ("/equity", "/metrics/timeseries", "/metrics/rolling?window=5", "/report")


@pytest.fixture
def files(client: TestClient, store: Store, runner: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """The address of a run that was read already, and the folder of its files."""
    ran = client.post("/backtest/run", json=QUESTION | {"end": "2025-12-01"}, headers=runner).json()
    run = f"/backtests/{ran['run_id']}"
    uri = client.get(run, headers=runner).json()["artifact_uri"]
    folder = store.folder / "artifacts" / uri
    for name in READING:
        assert client.get(f"{run}{name}", headers=runner).status_code == 200
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    yield run, folder
    shutil.rmtree(folder, ignore_errors=True)
    kept.rename(folder)


def _double_equity(path: Path) -> None:
    table = pq.read_table(path)
    doubled = pa.array(table["equity"].to_numpy() * 2)
    pq.write_table(table.set_column(table.column_names.index("equity"), "equity", doubled), path)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [_double_equity, _truncate])
def test_files_that_changed_after_they_were_read_are_not_served(
    client: TestClient,
    viewer: dict[str, str],
    files: tuple[str, Path],
    damage: Callable[[Path], None],
) -> None:
    run, folder = files
    damage(folder / "equity.parquet")
    for name in (*READING, "/artifacts/equity.parquet"):
        response = client.get(f"{run}{name}", headers=viewer)
        problem = told(response, "ARTIFACT_CORRUPT")
        assert "equity.parquet has changed since it was written" in problem["detail"]
        assert str(folder.parents[2]) not in response.text
    assert client.get(f"{run}/summary", headers=viewer).status_code == 200


def test_rows_are_served_where_the_files_are_gone(
    client: TestClient, viewer: dict[str, str], files: tuple[str, Path]
) -> None:
    run, folder = files
    before = client.get(f"{run}/summary", headers=viewer).json()
    shutil.rmtree(folder)
    assert client.get(f"{run}/summary", headers=viewer).json() == before
    for name in ("/trades", "/blocks"):
        assert client.get(f"{run}{name}", headers=viewer).status_code == 200
    for name in ("", *READING, "/artifacts/equity.parquet"):
        told(client.get(f"{run}{name}", headers=viewer), "RESULT_PATH_MISSING")
