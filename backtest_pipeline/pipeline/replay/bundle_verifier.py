"""Verify an exported run: recompute every file's hash and the result's fingerprint.

A bundle holds this file as verify.py. It needs only pyarrow:

    python verify.py [BUNDLE]

BUNDLE is the .zip file, or the folder it was unpacked to; by default the folder of this file. The
exit code is 0 if nothing has changed since the export, and 1 otherwise, with one line per problem.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
TRADES = "trades.parquet"
EQUITY = "equity.parquet"
# The columns of a trade, in the order in which they enter the fingerprint.
FINGERPRINTED = (
    *("trade_no", "entry_bar", "entry_ts", "exit_ts", "entry_price", "exit_price", "direction"),
    *("size", "fees", "slippage_cost", "funding", "pnl", "pnl_pct", "mae", "mfe", "bars_held"),
    *("entry_stop", "entry_stop_kind", "exit_stop", "exit_stop_kind"),
    *("exit_reason", "is_open", "entry_after_gap"),
)


def fingerprint_of(files: dict[str, bytes], about: dict[str, Any]) -> str:
    """The sha256 of trades, equity, benchmark and the run's final state, in canonical bytes.

    Numbers are little-endian float64, with a single NaN and a single zero; timestamps are
    microseconds since 1970 UTC; long is 1 and short -1; an exit reason and a kind of stop are their
    positions in the manifest's lists, and no stop is -1.
    """
    # Without threads: a thread pool can abort a process that exits right afterwards.
    trades, equity = (
        pq.ParquetFile(io.BytesIO(files[name])).read(use_threads=False) for name in (TRADES, EQUITY)
    )
    codes: dict[str, dict[str | None, int]] = {"direction": {"long": 1, "short": -1}}
    codes["exit_reason"] = {name: i for i, name in enumerate(about["exit_reasons"])}
    stops = {None: -1, **{name: i for i, name in enumerate(about["stop_kinds"])}}
    codes["entry_stop_kind"] = codes["exit_stop_kind"] = stops
    columns = [
        [codes[name][value] for value in trades[name].to_pylist()]
        if name in codes
        else _numbers(trades[name])
        for name in FINGERPRINTED
    ]
    digest = hashlib.sha256()
    for row in zip(*columns, strict=True):
        digest.update(_canonical(row))
    digest.update(_canonical(_numbers(equity["equity"])))
    digest.update(_canonical(_numbers(equity["benchmark"])))
    digest.update(_canonical(about["ends"]))
    return digest.hexdigest()


def _numbers(column: Any) -> list[float]:
    is_stamp = str(column.type).startswith("timestamp")
    values = column.cast("int64") if is_stamp else column
    return [float("nan") if value is None else float(value) for value in values.to_pylist()]


def _canonical(values: Any) -> bytes:
    numbers = [float("nan") if v != v else float(v) + 0.0 for v in values]
    return struct.pack(f"<{len(numbers)}d", *numbers)


def problems_of(files: dict[str, bytes]) -> list[str]:
    """The problems of a bundle, in words; empty where it is unchanged since its export."""
    if MANIFEST not in files or SEAL not in files:
        return [f"{name} is missing" for name in (MANIFEST, SEAL) if name not in files]
    if hashlib.sha256(files[MANIFEST]).hexdigest().encode() != files[SEAL].strip():
        return [f"{MANIFEST} is not the one that was exported"]
    manifest = json.loads(files[MANIFEST])
    listed = manifest["files"]
    problems = [f"{name} is missing" for name in sorted(listed.keys() - files.keys())]
    problems += [
        f"{name} does not belong to the bundle"
        for name in sorted(files.keys() - listed.keys() - {MANIFEST, SEAL})
    ]
    problems += [
        f"{name} has changed: its sha256 differs"
        for name in sorted(listed.keys() & files.keys())
        if hashlib.sha256(files[name]).hexdigest() != listed[name]["sha256"]
    ]
    if problems:
        return problems
    fingerprint = fingerprint_of(files, manifest)
    if fingerprint != manifest["result_fingerprint"]:
        problems.append(
            f"trades and equity have fingerprint {fingerprint}, but the run was stored with "
            f"{manifest['result_fingerprint']}"
        )
    return problems


def read_bundle(path: Path) -> dict[str, bytes]:
    """The files of a bundle by name; raises OSError or BadZipFile where it cannot be read."""
    if path.is_dir():
        paths = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in paths}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def main() -> int:
    """Verify the bundle that the command line names."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    try:
        files = read_bundle(path)
    except (OSError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # pyright: ignore[reportAttributeAccessIssue]
        print(f"cannot read {path}: {error}")  # noqa: T201
        return 1
    problems = problems_of(files)
    for problem in problems:
        print(problem)  # noqa: T201
    if not problems:
        manifest = json.loads(files[MANIFEST])
        print(  # noqa: T201
            f"OK: {manifest['name']}, run {manifest['run_id']}: {len(manifest['files'])} files, "
            f"fingerprint {manifest['result_fingerprint']}"
        )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
