"""Stored runs over HTTP: who may remove them, and where their files have changed or gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from backtest_pipeline_tests.service.conftest import QUESTION, Store, bearing
from backtest_pipeline_tests.service.problems import told

READING = ("/equity", "/metrics/timeseries", "/metrics/rolling?window=5")


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


def test_only_its_owner_or_an_admin_unpins_and_deletes(client: TestClient, store: Store) -> None:
    ann, bob = (bearing(store.key(name=name)) for name in ("ann", "bob"))
    admin = bearing(store.key("admin"))
    runs = [
        client.post("/backtest/run", json=QUESTION | {"end": end}, headers=ann).json()["run_id"]
        for end in ("2025-11-01", "2025-11-02", "2025-11-03")
    ]
    portfolio = client.post(
        "/backtest/portfolio",
        json={"symbols": ["AAA", "BBB"], "end": "2025-11-01"},
        headers=ann,
    ).json()["portfolio_id"]
    pins = [f"/backtests/{runs[0]}/pin", f"/portfolios/{portfolio}/pin"]
    for pin in pins:
        assert client.put(pin, json={}, headers=ann).status_code == 204
        for change in (client.delete(pin, headers=bob), client.put(pin, json={}, headers=bob)):
            assert "pinned by ann" in told(change, "FORBIDDEN")["detail"]
        assert client.put(pin, json={"note": "again"}, headers=ann).status_code == 204
    assert client.delete(pins[0], headers=ann).status_code == 204
    assert client.delete(pins[1], headers=admin).status_code == 204

    refused = client.delete(f"/backtests/{runs[0]}", headers=bob)
    assert "was requested by ann" in told(refused, "FORBIDDEN")["detail"]
    assert client.delete(f"/backtests/{runs[0]}", headers=ann).status_code == 204
    assert client.delete(f"/backtests/{runs[1]}", headers=admin).status_code == 204
    # What both have asked for is neither's alone.
    client.post("/backtest/run", json=QUESTION | {"end": "2025-11-03"}, headers=bob)
    for one in (ann, bob):
        told(client.delete(f"/backtests/{runs[2]}", headers=one), "FORBIDDEN")
    with store.database.begin() as connection:
        connection.execute(
            sa.text("DELETE FROM run_requests WHERE run_id = :run"), {"run": runs[2]}
        )
    refused = client.delete(f"/backtests/{runs[2]}", headers=ann)
    assert "by a refresh" in told(refused, "FORBIDDEN")["detail"]
    assert client.delete(f"/backtests/{runs[2]}", headers=admin).status_code == 204


def test_only_its_owner_or_an_admin_cancels_a_job(client: TestClient, store: Store) -> None:
    ann, bob = (bearing(store.key(name=name)) for name in ("ann", "bob"))
    for one in (ann, bearing(store.key("admin"))):
        spec = {"spec": QUESTION | {"kind": "run"}}
        job = client.post("/backtest/jobs", json=spec, headers=ann).json()["job_id"]
        told(client.delete(f"/backtest/jobs/{job}", headers=bob), "FORBIDDEN")
        cancelled = client.delete(f"/backtest/jobs/{job}", headers=one)
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
