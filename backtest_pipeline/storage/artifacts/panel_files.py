"""Panels read from snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore


def read_panel(
    artifacts: ArtifactStore,
    tf: str,
    uris_of: Mapping[str, Sequence[str]],
    columns: Sequence[str],
) -> Panel:
    """Read assets of one timeframe, in the given order, each from its files, oldest rows first."""
    parts = read_chains(artifacts, tf, uris_of, columns)
    return Panel.join(timeframe(tf), list(uris_of), parts, columns)


def read_chains(
    artifacts: ArtifactStore, tf: str, chains: Mapping[str, Sequence[str]], columns: Sequence[str]
) -> list[Panel]:
    """Panels of the snapshots in these chains, those with older rows first."""
    assets_of: dict[str, list[str]] = {}
    order = TopologicalSorter[str]()
    for asset, uris in chains.items():
        for uri in uris:
            assets_of.setdefault(uri, []).append(asset)
            order.add(uri)
        for older, newer in pairwise(uris):
            order.add(newer, older)
    names = ["asset", "ts", *columns]
    return [
        _panel_of(artifacts.read_snapshot(uri, names, assets_of[uri]), tf, columns)
        for uri in order.static_order()
    ]


def _panel_of(table: pa.Table, tf: str, columns: Sequence[str]) -> Panel:
    names = table["asset"].combine_chunks()
    codes = names.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1) != 0)
    assets = tuple(names.dictionary.to_pylist()[code] for code in codes[starts])
    return Panel(
        timeframe(tf),
        assets,
        np.append(starts, len(codes)).astype(np.int64),
        table["ts"].cast(pa.int64()).to_numpy(),
        {name: table[name].to_numpy() for name in columns},
    )
