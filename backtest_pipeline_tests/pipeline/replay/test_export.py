"""A run that was exported is whole, says so without this package, and notices every change."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt, InvalidInput, RunNotFound, UnknownName
from backtest_pipeline.pipeline.replay import bundle_verifier
from backtest_pipeline.pipeline.replay.export import (
    bundle_files,
    export_as,
    export_bundle,
    export_run,
)
from backtest_pipeline.pipeline.replay.signatures import SigningKey
from backtest_pipeline.pipeline.runs.query import get_run, list_runs, run_timeseries, run_trades
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS
from backtest_pipeline_tests.pipeline.replay.minisign import require_valid, write_key
from backtest_pipeline_tests.sql import execute_sql

# Every kind of end: shorts, stops, open trades, a signal that is pending.
CONFIG = SimulationConfig(direction=Direction.BOTH, stops=StopRules(stop_loss=0.05))


@pytest.fixture(scope="module")
def stored(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    for database in database_like(template, "backtest"):
        workspace = Workspace(database, ArtifactStore(tmp_path_factory.mktemp("exported")))
        refresh(workspace, MARKET, PARTITIONS[:4], CONFIG)
        yield workspace


@pytest.fixture
def one(stored: Workspace) -> UUID:
    return max(list_runs(stored).rows, key=lambda row: row["trade_count"])["run_id"]


def test_every_run_has_its_fingerprint_in_its_bundle(stored: Workspace) -> None:
    runs = list_runs(stored).rows
    assert len(runs) == 24
    for run in runs:
        assert bundle_verifier.problems_of(bundle_files(stored, run["run_id"])) == []


def test_a_bundle_holds_all_that_a_run_follows_from(stored: Workspace, one: UUID) -> None:
    files = bundle_files(stored, one)
    run = get_run(stored, one)
    assert {
        *("run.json", "config.json", "environment.json", "trades.parquet", "equity.parquet"),
        *("metrics.parquet", "monthly_returns.parquet", "code.zip", "verify.py", "manifest.json"),
        *("manifest.sha256", f"inputs/{run.symbol}-{run.timeframe}.parquet"),
    } == set(files)
    rows = pq.read_table(io.BytesIO(files[f"inputs/{run.symbol}-{run.timeframe}.parquet"]))
    assert len(rows) == run.n_bars
    with zipfile.ZipFile(io.BytesIO(files["code.zip"])) as code:
        assert "backtest_pipeline/simulation/engine.py" in code.namelist()


def test_the_same_run_gives_the_same_bytes(stored: Workspace, one: UUID, tmp_path: Path) -> None:
    first = export_bundle(stored, one, tmp_path / "a.zip")
    again = export_bundle(stored, one, tmp_path / "folder")
    assert again == tmp_path / "folder" / f"{one}.zip"
    assert first.read_bytes() == again.read_bytes()
    assert not list(tmp_path.rglob("*.unfinished"))


def test_a_signed_bundle_names_its_run(stored: Workspace, one: UUID, tmp_path: Path) -> None:
    key = SigningKey.of_file(write_key(tmp_path / "desk.key"))
    bundle, signature = export_as(stored, one, tmp_path / "run.zip", "bundle", key)
    assert signature == tmp_path / "run.zip.minisig"
    assert require_valid(bundle.read_bytes(), signature.read_bytes()) == f"run {one}"
    with pytest.raises(InvalidInput, match="only a bundle can be signed"):
        export_as(stored, one, tmp_path, "csv", key)


def _verified(script: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """What the script says, in a process that sees neither this package nor the environment."""
    return subprocess.run(
        [sys.executable, "-I", str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={},
        cwd=script.parent,
        check=False,
    )


def test_an_unpacked_bundle_verifies_itself(stored: Workspace, one: UUID, tmp_path: Path) -> None:
    bundle = export_bundle(stored, one, tmp_path / "run.zip")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "run")
    script = tmp_path / "run" / "verify.py"
    for arguments in ((), (bundle,)):
        done = _verified(script, *arguments)
        assert (done.returncode, done.stdout[:3]) == (0, "OK:"), done.stderr
    path = tmp_path / "run" / "trades.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = _verified(script)
    assert done.returncode == 1
    assert done.stdout == "trades.parquet has changed: its sha256 differs\n"


def test_a_bit_flipped_anywhere_is_noticed(stored: Workspace, one: UUID, tmp_path: Path) -> None:
    files = bundle_files(stored, one)
    for name in files:
        data = bytearray(files[name])
        data[len(data) // 2] ^= 1
        assert bundle_verifier.problems_of({**files, name: bytes(data)}), name
        less = {other: data for other, data in files.items() if other != name}
        assert bundle_verifier.problems_of(less) == [f"{name} is missing"]
    assert bundle_verifier.problems_of({**files, "more.txt": b""}) == [
        "more.txt does not belong to the bundle"
    ]
    packed = bytearray(export_bundle(stored, one, tmp_path / "run.zip").read_bytes())
    script = tmp_path / "verify.py"
    script.write_bytes(files["verify.py"])
    for at in (100, len(packed) // 3, len(packed) // 2, len(packed) - 10):
        damaged = bytearray(packed)
        damaged[at] ^= 1
        (tmp_path / "damaged.zip").write_bytes(damaged)
        assert _verified(script, tmp_path / "damaged.zip").returncode == 1, at


def test_the_verifier_needs_pyarrow_and_nothing_else() -> None:
    tree = ast.parse(Path(bundle_verifier.__file__).read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names - set(sys.stdlib_module_names) == {"pyarrow"}


def test_tables_are_written_in_both_formats(stored: Workspace, one: UUID, tmp_path: Path) -> None:
    for form, read in (
        ("parquet", pq.read_table),
        ("csv", pa_csv.read_csv),
    ):
        written = export_run(stored, one, tmp_path / form, form)
        assert sorted(path.name for path in written) == sorted(
            [
                *("run.json", f"trades.{form}", f"metrics.{form}", f"equity.{form}"),
                f"monthly_returns.{form}",
            ]
        )
        equity = read(tmp_path / form / f"equity.{form}")
        assert equity["equity"].to_pylist() == run_timeseries(stored, one)["equity"].to_pylist()
        trades = read(tmp_path / form / f"trades.{form}")
        known = run_trades(stored, one, limit=1000).rows
        assert trades["pnl"].to_pylist() == [trade["pnl"] for trade in known]
        bars = equity["ts"].cast(pa.int64()) if form == "parquet" else None
        if bars is not None:
            entered = [bars[i].as_py() for i in trades["entry_bar"].to_pylist()]
            stamps = trades["entry_ts"].cast(pa.int64()).to_pylist()
            assert all(a <= b for a, b in zip(stamps, entered, strict=True))


def test_what_cannot_be_exported_has_its_error(
    stored: Workspace, one: UUID, workspace: Workspace, tmp_path: Path
) -> None:
    with pytest.raises(RunNotFound):
        export_run(workspace, one, tmp_path)
    with pytest.raises(UnknownName, match="did you mean parquet"):
        export_run(stored, one, tmp_path, "parket")
    refresh(workspace, MARKET, PARTITIONS[:1], CONFIG)
    changed = max(list_runs(workspace).rows, key=lambda row: row["trade_count"])["run_id"]
    execute_sql(
        workspace, "UPDATE backtest_trades SET pnl = pnl + 1 WHERE run_id = :id", id=changed
    )
    with pytest.raises(ArtifactCorrupt, match="has changed since it was stored"):
        export_bundle(workspace, changed, tmp_path)
    assert not list(tmp_path.glob("*.zip"))
