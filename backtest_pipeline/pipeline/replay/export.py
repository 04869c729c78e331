"""Export of stored runs: as tables, or as a bundle with all inputs that verifies itself."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from backtest_pipeline.market.errors import ArtifactCorrupt, InvalidInput, UnknownName
from backtest_pipeline.pipeline.cross_section.ranked_account import FILES
from backtest_pipeline.pipeline.planning.records import transcript_uri
from backtest_pipeline.pipeline.replay import bundle_verifier
from backtest_pipeline.pipeline.replay.bundle_tables import (
    table_of_blocks,
    table_of_plans,
    tables_of_run,
)
from backtest_pipeline.pipeline.replay.signatures import SUFFIX, SigningKey
from backtest_pipeline.pipeline.replay.worker_process import ReplayRequest
from backtest_pipeline.pipeline.runs.query import RunDetail, get_run
from backtest_pipeline.pipeline.runs.run_files import funding_uri
from backtest_pipeline.pipeline.versions import PLANNED
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.json_values import plain
from backtest_pipeline.simulation.engine import EXIT_REASONS, STOP_KINDS
from backtest_pipeline.simulation.orders import NOTHING_PENDING
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import read_code, zipped
from backtest_pipeline.storage.plan_tables.plan_history import list_plans
from backtest_pipeline.storage.run_tables.block_events import stored_blocks
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs
from backtest_pipeline.storage.run_tables.robustness import stored_robustness
from backtest_pipeline.storage.run_tables.walk_forward import stored_folds
from backtest_pipeline.storage.tables.datasets import dataset_of_key
from backtest_pipeline.strategies.cross_section.definition import KIND

FORMATS = ("parquet", "csv")
BUNDLE = "bundle"
_VERIFIER = "verify.py"
_SIDES = {"long": 1, "short": -1, "flat": 0, None: NOTHING_PENDING}


def require_format(form: str, *, signed: bool = False) -> None:
    """Raise UnknownName for a form that does not exist, InvalidInput for one without signature."""
    if form not in (*FORMATS, BUNDLE):
        raise UnknownName("format", form, (*FORMATS, BUNDLE))
    if signed and form != BUNDLE:
        raise InvalidInput(f"only a bundle can be signed; give --format {BUNDLE}")


def export_as(
    workspace: Workspace, run_id: UUID, to: Path, form: str, key: SigningKey | None = None
) -> list[Path]:
    """Export a run as tables (`export_run`) or as a bundle (`export_bundle`); returns the files.

    A `key` signs the bundle, in a file beside it that `minisign -V` verifies.
    """
    require_format(form, signed=key is not None)
    if form != BUNDLE:
        return export_run(workspace, run_id, to, form)
    bundle = export_bundle(workspace, run_id, to)
    if key is None:
        return [bundle]
    signature = key.signature(bundle.read_bytes(), f"run {run_id}")
    return [bundle, _written(bundle.with_name(bundle.name + SUFFIX), signature)]


def export_run(
    workspace: Workspace, run_id: UUID, folder: Path, form: str = "parquet"
) -> list[Path]:
    """Write a run's tables to a folder: trades, metrics, equity, monthly returns, and `run.json`.

    Of a run under plans also `blocks`, its blocked entries and exits, and `plan_log`, the plans
    that it followed; of a cross-section also `daily_ic`, `daily_signals` and `daily_weights`.

    Args:
        workspace: the open store.
        run_id: the run.
        folder: created if missing; files of the same names are replaced.
        form: `parquet` or `csv`.

    Returns:
        The paths of the files.

    Raises:
        RunNotFound, ProvenanceMissing, ResultPathMissing, ArtifactCorrupt: as `get_run` raises.
    """
    if form not in FORMATS:
        raise UnknownName("format", form, FORMATS)
    run = get_run(workspace, run_id)
    tables = tables_of_run(workspace, run)
    own = FILES if run.split == KIND else ()
    read, uri = workspace.artifacts.read_table, run.artifact_uri
    tables |= {name: read(uri, f"{name}.parquet") for name in own}
    if run.split == PLANNED:
        with workspace.database.begin() as connection:
            tables["blocks"] = table_of_blocks(stored_blocks(connection, run_id))
            tables["plan_log"] = table_of_plans(list_plans(connection, run_id))
    write = _parquet if form == "parquet" else _csv
    files = {
        "run.json": _json(vars(run)),
        **{f"{name}.{form}": write(table) for name, table in tables.items()},
    }
    return [_written(folder / name, data) for name, data in files.items()]


def export_bundle(workspace: Workspace, run_id: UUID, path: Path) -> Path:
    """Write a run with all its inputs as one .zip file that verifies itself.

    It holds the stored results, the feature rows that the run read, its configuration, source code
    and environment, and `verify.py`, which needs only pyarrow. The same run gives the same bytes,
    as long as the ledger has no more trials that count for it.

    Args:
        workspace: the open store.
        run_id: the run.
        path: the file, or a folder to put `<run id>.zip` in.

    Raises:
        RunNotFound, ProvenanceMissing, ResultPathMissing, ArtifactCorrupt: as `get_run` raises.
        CannotReplay: where the files with the rows that it read are not known.
    """
    if path.suffix != ".zip":
        path = path / f"{run_id}.zip"
    return _written(path, zipped(bundle_files(workspace, run_id)))


def bundle_files(workspace: Workspace, run_id: UUID) -> dict[str, bytes]:
    """The contents of a bundle by file name; raises as `export_bundle`."""
    run = get_run(workspace, run_id)
    files = {
        # Who requested or pinned a run is not part of the run.
        "run.json": _json(
            {k: v for k, v in vars(run).items() if k not in ("pin", "requests", "is_current")}
        ),
        "config.json": _json(run.config),
        "environment.json": _json(run.provenance["environment"]),
        **{f"{name}.parquet": _parquet(t) for name, t in tables_of_run(workspace, run).items()},
        **_beside(workspace, run),
        **_inputs(workspace, run),
        _VERIFIER: Path(bundle_verifier.__file__).read_bytes(),
    }
    manifest = _json(
        {
            "format": 1,
            "run_id": run.run_id,
            "name": run.name,
            "result_fingerprint": run.provenance["result_fingerprint"],
            "ledger_as_of": run.provenance["deflated_at"],
            "exit_reasons": EXIT_REASONS,
            "stop_kinds": STOP_KINDS,
            "ends": [
                _SIDES[run.results["pending"]],
                int(run.results["liquidated"]),
                # Exits that were blocked too; older runs have entries alone.
                run.results.get("limit_enforcement", {"total": run.results["blocked_entries"]})[
                    "total"
                ],
            ],
            "files": {
                name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in sorted(files.items())
            },
        }
    )
    files[bundle_verifier.MANIFEST] = manifest
    files[bundle_verifier.SEAL] = hashlib.sha256(manifest).hexdigest().encode() + b"\n"
    problems = bundle_verifier.problems_of(files)
    if problems:
        raise ArtifactCorrupt(
            f"run {run_id} has changed since it was stored: {'; '.join(problems)}; run "
            "`backtest-pipeline replay` to find out what differs"
        )
    return files


def _beside(workspace: Workspace, run: RunDetail) -> dict[str, bytes]:
    """Files with a walk-forward's folds and the robustness results, where they are stored."""
    with workspace.database.begin() as connection:
        folds = stored_folds(connection, run.run_id)
        doubts = stored_robustness(connection, run.run_id)
        plans = list_plans(connection, run.run_id)
        blocks = stored_blocks(connection, run.run_id)
    files = {"folds.json": _json(folds)} if folds else {}
    if doubts:
        files["robustness.json"] = _json(doubts)
        files |= _directory(workspace.artifacts, doubts["artifact_uri"], "robustness")
    if run.split == KIND:
        names, read = [f"{name}.parquet" for name in FILES], workspace.artifacts.read_bytes
        files |= {name: read(run.artifact_uri, name) for name in names}
    if run.split == PLANNED:
        files["plans.json"] = _json(plans)
        files[bundle_verifier.BLOCKS] = _parquet(table_of_blocks(blocks))
        named = {plan[name] for plan in plans for name in ("transcript", "opinion")}
        for digest in sorted(named - {None}):
            files[f"transcripts/{digest}.json"] = workspace.artifacts.read_file(
                transcript_uri(digest)
            )
    return files


def _inputs(workspace: Workspace, run: RunDetail) -> dict[str, bytes]:
    """Files with a run's inputs: rows by partition, funding rates, and source code."""
    with workspace.database.begin() as connection:
        (recorded,) = recorded_runs(connection, [run.run_id])
    artifacts, files = workspace.artifacts, {}
    for key, snapshot in ReplayRequest.of(recorded).snapshots.items():
        asset = dataset_of_key(key)[0].asset
        parts = [
            artifacts.read_snapshot(uri, artifacts.columns_of(uri), [asset])
            for uri in snapshot.uris
        ]
        rows = pa.concat_tables(parts).drop_columns("asset")
        files[f"inputs/{re.sub('[|:]', '-', key)}.parquet"] = _parquet(rows)
    if rates := run.config.get("funding"):
        files |= _directory(artifacts, funding_uri(rates), "funding")
    if recorded.code_archive:
        files["code.zip"] = read_code(artifacts, recorded.code_archive).data
    files |= {f"strategy/{name}": data for name, data in recorded.strategy_files.items()}
    return files


def _directory(artifacts: ArtifactStore, uri: str, folder: str) -> dict[str, bytes]:
    names = artifacts.manifest(uri).files
    return {f"{folder}/{name}": artifacts.read_bytes(uri, name) for name in names}


def _json(value: Any) -> bytes:
    return (json.dumps(plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _parquet(table: pa.Table) -> bytes:
    return _bytes_of(lambda sink: pq.write_table(table, sink))


def _csv(table: pa.Table) -> bytes:
    return _bytes_of(lambda sink: pa_csv.write_csv(table, sink))


def _bytes_of(write: Callable[[io.BytesIO], None]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def _written(path: Path, data: bytes) -> Path:
    """Write a file atomically."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path
