"""Blocked entries of a batch as table rows, and as counts in a run's results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.blocked_entries import refusal_columns

_WORDS = ("side", "reason", "class", "detail")


def block_table(batch: BatchResult, run_ids: Sequence[str]) -> pa.Table:
    """Rows of `block_events`, `run_id` as text; column `c` of the batch is `run_ids[c]`."""
    panel, refusals = batch.panel, batch.refusals
    columns = refusal_columns(refusals)
    symbols = np.array(panel.assets, object)[refusals.column % max(len(panel.assets), 1)]
    words = {
        "run_id": np.array(run_ids, object)[refusals.column],
        "symbol": symbols,
        "timeframe": np.full(len(refusals), panel.timeframe.name, object),
        **{name: columns[name] for name in _WORDS},
    }
    return pa.table(
        {
            **{name: pa.array(values, pa.string()) for name, values in words.items()},
            "event_no": columns["event_no"],
            "ts": pa.array(columns["ts"], pa.timestamp("us", "UTC")),
            "qty": pa.array(columns["qty"], from_pandas=True),
        }
    )


def limit_enforcement(batch: BatchResult) -> list[dict[str, Any]]:
    """The number of blocked entries of each run, in total and by reason."""
    by_reason = [Counter[str]() for _ in batch.refused]
    reasons = refusal_columns(batch.refusals)["reason"].tolist()
    for column, reason in zip(batch.refusals.column.tolist(), reasons, strict=True):
        by_reason[column][reason] += 1
    return [{"total": counts.total(), "by_reason": counts} for counts in by_reason]
