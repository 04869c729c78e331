"""Folds as they are stored: rows of `walk_forward_folds`, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pyarrow as pa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.runs.identity import canonical_json
from backtest_pipeline.research.validation.schedule import Task
from backtest_pipeline.research.validation.walk_forward import FOLD_METRICS, Chosen, Question
from backtest_pipeline.strategies.grid import ParameterSpace


@dataclass(frozen=True)
class Destination:
    """What the folds of an asset are stored under, and what they are folds of.

    Attributes:
        run_id: of the stitched run.
        asset_id: of `dim_assets`.
        dataset_version: of the features, and of the user's own columns that are read.
    """

    run_id: UUID
    asset_id: int
    dataset_version: str


def fold_row(
    panel: Panel,
    task: Task,
    key: str,
    chosen: Chosen,
    question: Question,
    destination: Destination,
    computed_at: datetime,
) -> dict[str, Any]:
    """A fold as a row of `walk_forward_folds`; NULL where a number is undefined."""
    train, test = task.windows(panel)
    combination = chosen.combination
    return {
        "run_id": str(destination.run_id),
        "fold": task.fold.number,
        "fold_key": key,
        "strategy": question.space.strategy.name,
        "id": destination.asset_id,
        "symbol": task.asset,
        "tf": panel.timeframe.name,
        "train_start": int(panel.ts[train.start]),
        "train_end": int(panel.ts[train.stop - 1]),
        "test_start": int(panel.ts[test.start]),
        "test_end": int(panel.ts[test.stop - 1]),
        "n_train": train.stop - train.start,
        "n_test": test.stop - test.start,
        "status": "undefined" if combination is None else "chosen",
        "params": None
        if combination is None
        else canonical_json(question.space.params(combination)),
        "objective": question.objective.name,
        "score": _or_none(chosen.score),
        "n_combinations": chosen.n_combinations,
        **{f"train_{name}": _or_none(chosen.train[name]) for name in FOLD_METRICS},
        **{f"test_{name}": _or_none(chosen.test[name]) for name in FOLD_METRICS},
        "computed_at": computed_at,
    }


def fold_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of `fold_row` for `storage.run_tables.walk_forward.store_folds`."""
    stamp = pa.timestamp("us", "UTC")
    text = ("run_id", "fold_key", "strategy", "symbol", "tf", "status", "params", "objective")
    whole = ("fold", "id", "n_train", "n_test", "n_combinations")
    kinds = {
        **dict.fromkeys(text, pa.string()),
        **dict.fromkeys(whole, pa.int32()),
        **dict.fromkeys(("train_start", "train_end", "test_start", "test_end"), stamp),
        "computed_at": stamp,
    }
    return pa.table(
        {name: pa.array([r[name] for r in rows], kinds.get(name, pa.float64())) for name in rows[0]}
    )


def chosen_of(row: Mapping[str, Any], space: ParameterSpace) -> Chosen:
    """A stored fold as it was computed."""
    params = row["params"]
    return Chosen(
        combination=None if params is None else tuple(params[name] for name in space.names),
        score=_or_nan(row["score"]),
        n_combinations=row["n_combinations"],
        train={name: _or_nan(row[f"train_{name}"]) for name in FOLD_METRICS},
        test={name: _or_nan(row[f"test_{name}"]) for name in FOLD_METRICS},
    )


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
