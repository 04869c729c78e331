"""Content hashes of the rows of a panel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from backtest_pipeline.market.panel import Panel

BLOCK_ROWS = 64
"""Rows per hashed block; a resumed hash repeats at most this many rows."""

_ROWS = 4096  # encoded at a time: fits in the processor's cache


class Checkpoint(NamedTuple):
    """Number of rows in the complete blocks at the start of an asset's history, and their hash."""

    n_rows: int
    digest: str


class ContentVersions(NamedTuple):
    """Hashes by asset: of all rows, of the first rows where requested, and of complete blocks."""

    whole: dict[str, str]
    beginning: dict[str, str]
    checkpoints: dict[str, Checkpoint]


def whole_blocks(n_rows: np.ndarray) -> np.ndarray:
    """The number of rows in complete blocks, for each number of rows, int `(n,)`."""
    return n_rows - n_rows % BLOCK_ROWS


def content_versions(
    panel: Panel,
    columns: Sequence[str],
    until: Mapping[str, int] | None = None,
    since: Mapping[str, Checkpoint] | None = None,
) -> ContentVersions:
    """Hash the rows of each asset: timestamps and the named columns.

    The hash (sha256, cut to 128 bits) covers the timeframe's name, the columns' names and kinds,
    and then row by row `ts` and the integer and boolean columns as little-endian int64, followed by
    the other columns as little-endian float64 with a single NaN. After each BLOCK_ROWS rows of an
    asset the hash so far replaces everything before it, so that hashing can resume there when rows
    are added. The order of `columns` matters, the order of assets does not.

    Args:
        panel: the rows.
        columns: float64, bool or integer columns of the panel.
        until: for each asset whose first rows are hashed too, the last timestamp of those rows.
        since: for each asset whose first rows are missing from the panel, the blocks left out.
    """
    rows = _EncodedRows(panel, columns)
    hashes = ContentVersions({}, {}, {})
    for asset, start, stop in zip(
        panel.assets, panel.offsets.tolist(), panel.offsets[1:].tolist(), strict=False
    ):
        before = (since or {}).get(asset, Checkpoint(0, rows.header))
        cut = stop + 1  # beyond the last row: not requested
        if until is not None and asset in until:
            cut = start + int(panel.ts[start:stop].searchsorted(until[asset], "right"))
        digest = before.digest
        for first in range(start, stop + 1, BLOCK_ROWS):
            after = first + BLOCK_ROWS
            if first <= cut < after and cut <= stop:
                hashes.beginning[asset] = rows.hash(digest, first, cut)
            if after > stop:
                hashes.checkpoints[asset] = Checkpoint(before.n_rows + first - start, digest)
                hashes.whole[asset] = rows.hash(digest, first, stop)
                break
            digest = rows.hash(digest, first, after)
    return hashes


class _EncodedRows:
    """A panel encoded as bytes row by row; fast if rows are read in ascending order."""

    def __init__(self, panel: Panel, columns: Sequence[str]) -> None:
        real = {name: np.issubdtype(panel[name].dtype, np.floating) for name in columns}
        kinds = [f"{name}:{'f8' if is_real else 'i8'}" for name, is_real in real.items()]
        self.header = "".join(f"{text}\0" for text in (panel.timeframe.name, *kinds))
        self._whole = [panel.ts, *(panel[name] for name in columns if not real[name])]
        self._real = [panel[name] for name in columns if real[name]]
        self._n_rows, self._width = len(panel), 8 * (1 + len(columns))
        self._first = -1
        self._bytes = memoryview(b"")

    def hash(self, before: str, start: int, stop: int) -> str:
        """Hash of a text followed by these rows."""
        digest = hashlib.sha256(before.encode())
        while start < stop:
            first = start - start % _ROWS
            if first != self._first:
                self._bytes, self._first = self._encoded(first), first
            until = min(stop, first + _ROWS)
            digest.update(
                self._bytes[(start - first) * self._width : (until - first) * self._width]
            )
            start = until
        return digest.hexdigest()[:32]

    def _encoded(self, first: int) -> memoryview:
        rows = slice(first, min(first + _ROWS, self._n_rows))
        table = np.empty((rows.stop - first, self._width // 8), "<i8")
        for i, values in enumerate(self._whole):
            table[:, i] = values[rows]
        reals = table.view("<f8")[:, len(self._whole) :]
        for i, values in enumerate(self._real):
            reals[:, i] = values[rows]
        np.copyto(reals, np.nan, where=np.isnan(reals))
        return table.reshape(-1).view(np.uint8).data


def combined(*versions: str) -> str:
    """A hash of several versions; their order matters."""
    text = "\0".join(versions) + "\0"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
