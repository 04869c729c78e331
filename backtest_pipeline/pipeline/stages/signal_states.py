"""Where each preset stands after the last bar of an asset."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.stages.conditions import (
    SignalBatch,
)
from backtest_pipeline.simulation.orders import (
    LONG_ENTRY,
    SHORT_ENTRY,
)
from backtest_pipeline.storage.tables.signals import (
    SignalState,
)


def signal_states(batch: SignalBatch, ids: Mapping[str, int]) -> list[SignalState]:
    """Where each preset stands after the last bar of each asset that has one."""
    panel = batch.panel
    long = _true_since(panel, batch.conditions, LONG_ENTRY)
    short = _true_since(panel, batch.conditions, SHORT_ENTRY)
    last = panel.offsets[1:] - 1
    return [
        SignalState(
            signal.signal_id,
            ids[asset],
            int(panel.ts[last[a]]),
            long[s][a],
            short[s][a],
            str(batch.failures.get(asset, {}).get(s, "")),
        )
        for a, asset in enumerate(panel.assets)
        if panel.lengths[a]
        for s, signal in enumerate(batch.signals)
    ]


def _true_since(panel: Panel, conditions: np.ndarray, bit: int) -> list[list[int | None]]:
    """For each preset and asset the first stamp of the stretch on which a condition still holds."""
    rows, (firsts, ends) = np.arange(len(panel)), (panel.offsets[:-1], panel.offsets[1:])
    found = []
    for of_preset in (conditions & np.uint8(bit)) > 0:
        false = np.maximum.accumulate(np.append(-1, np.where(of_preset, -1, rows)))[ends]
        since = np.maximum(false + 1, firsts)
        holds = [int(panel.ts[s]) if s < end else None for s, end in zip(since, ends, strict=True)]
        found.append(holds)
    return found
