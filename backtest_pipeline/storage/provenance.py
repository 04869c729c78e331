"""Content hashes: of the rows of a panel, and of the code that made them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from backtest_pipeline.market.panel import Panel


def content_versions(
    panel: Panel, columns: Sequence[str], until: Mapping[str, int] | None = None
) -> dict[str, str]:
    """For each asset a hash of its rows: stamps and the named columns.

    Hashed are, in this order: the timeframe's name, then `ts` as little-endian int64, then each
    column's name and values as little-endian float64 with one NaN (booleans as bytes). The order
    of `columns` counts, the order of assets does not.

    Args:
        panel: the rows.
        columns: float64, bool or integer columns of it.
        until: last stamp to hash of each asset; assets that are not named are left out. All rows
            of all assets where None.
    """
    if until is None:
        bounds = {asset: panel.rows_of(asset) for asset in panel.assets}
    else:
        bounds = {asset: _rows_until(panel, asset, last) for asset, last in until.items()}
    digests = {asset: _digest_of(panel.timeframe.name) for asset in bounds}
    for name, values in (("ts", panel.ts), *((c, panel[c]) for c in columns)):
        stored = _canonical(values).view(np.uint8).data
        width = len(stored) // max(len(panel), 1)
        for asset, rows in bounds.items():
            digests[asset].update(name.encode() + b"\0")
            digests[asset].update(stored[rows.start * width : rows.stop * width])
    return {asset: digest.hexdigest() for asset, digest in digests.items()}


def _rows_until(panel: Panel, asset: str, last: int) -> slice:
    rows = panel.rows_of(asset)
    return slice(rows.start, rows.start + int(panel.ts[rows].searchsorted(last, "right")))


def combined(*versions: str) -> str:
    """One version that follows from several, in their order."""
    return _digest_of("\0".join(versions)).hexdigest()


def _digest_of(text: str) -> hashlib.blake2b:
    return hashlib.blake2b(text.encode() + b"\0", digest_size=16)


def _canonical(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.bool_:
        return np.ascontiguousarray(values).view(np.uint8)
    if np.issubdtype(values.dtype, np.integer):
        return np.ascontiguousarray(values, dtype="<i8")
    canonical = np.array(values, dtype="<f8")
    canonical[np.isnan(canonical)] = np.nan
    return canonical


@cache
def code_version(*rooms: str) -> str:
    """A hash over the source text of these packages or modules, such as `market.features`.

    Raises:
        ModuleNotFoundError: for a room that does not exist.
    """
    digest = _digest_of("code")
    for room in sorted(rooms):
        for path in _sources(f"backtest_pipeline.{room}"):
            digest.update(f"{room}/{path.name}\0".encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def _sources(module: str) -> Iterable[Path]:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {module}")
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)]
    return sorted(Path(spec.origin).parent.rglob("*.py"))
