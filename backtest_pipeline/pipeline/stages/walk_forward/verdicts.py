"""Verdicts on walk-forwards: of their own folds, and of how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa

from backtest_pipeline.research.validation.efficiency import Efficiency, efficiency, judged
from backtest_pipeline.research.validation.walk_forward import Chosen
from backtest_pipeline.storage.run_tables.walk_forward import (
    walk_forwards_to_judge,
    write_verdicts,
)

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.copy import Cursor


def judge(
    chosen: Sequence[Chosen], psr: float, n_walk_forwards: int, threshold: float
) -> Efficiency:
    """The efficiency of an asset's folds; `psr` is that of their stitched run."""
    sharpes = ([c.train["sharpe"] for c in chosen], [c.test["sharpe"] for c in chosen])
    return efficiency(*sharpes, psr, n_walk_forwards, threshold)


def judge_again(cursor: Cursor, tf: str, symbols: Sequence[str]) -> None:
    """Judge the current walk-forwards of these assets by how many there are by now.

    See `storage.run_tables.walk_forward.walk_forwards_to_judge`.
    """
    rows = walk_forwards_to_judge(cursor, tf, symbols).to_pylist()
    for row in rows:
        psr = math.nan if row["psr"] is None else row["psr"]
        found = judged(
            row["train_sharpe"],
            row["test_sharpe"],
            row["n_judged"],
            psr,
            row["n_walk_forwards"],
            row["threshold"],
        )
        row |= {"verdict": found.verdict.value, "reason": found.reason}
    if rows:
        names = ("run_id", "n_walk_forwards", "declared_at", "verdict", "reason")
        kinds = {"declared_at": pa.timestamp("us", "UTC")}
        columns = {n: pa.array([row[n] for row in rows], kinds.get(n)) for n in names}
        write_verdicts(cursor, pa.table(columns))


def efficiency_row(run_id: UUID, found: Efficiency, threshold: float) -> dict[str, Any]:
    """The part of a row of `walk_forward_runs` that its folds decide."""
    return {
        "run_id": str(run_id),
        "n_judged": found.n_folds,
        "train_sharpe": found.train_sharpe,
        "test_sharpe": found.test_sharpe,
        "efficiency": found.ratio,
        "threshold": threshold,
        "verdict": found.verdict.value,
        "reason": found.reason,
    }


def efficiency_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of `walk_forward_runs`."""
    kinds = {
        **dict.fromkeys(("run_id", "verdict", "reason"), pa.string()),
        **dict.fromkeys(("n_folds", "n_judged", "n_left_out", "n_untested"), pa.int32()),
    }
    return pa.table(
        {name: pa.array([r[name] for r in rows], kinds.get(name, pa.float64())) for name in rows[0]}
    )
