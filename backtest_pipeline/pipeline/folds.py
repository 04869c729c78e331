"""Folds of a block: which are stored already, and those that are not, computed and stored."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.identity import (
    Asked,
    Window,
    canonical_json,
    hash_of,
    simulation_config,
)
from backtest_pipeline.pipeline.ledger import trials_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.efficiency import WFO_THRESHOLD
from backtest_pipeline.research.optimizer import Combination, Objective, Search
from backtest_pipeline.research.walk_forward import (
    FOLD_METRICS,
    Chosen,
    Question,
    Schedule,
    Task,
    blocks_of_tasks,
    choose,
)
from backtest_pipeline.simulation.account import engine_identity
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.storage.provenance import code_version
from backtest_pipeline.storage.trials import record_trials
from backtest_pipeline.storage.walk_forward import finished_folds, store_folds
from backtest_pipeline.strategies.grid import ParameterSpace


@dataclass(frozen=True)
class Plan:
    """How a walk-forward is done, beside the parameters and what is assumed.

    Attributes:
        schedule: training and test windows.
        search: how the parameters are searched.
        objective: what the best has most of.
        threshold: efficiency from which on it is not called overfit.
    """

    schedule: Schedule = field(default_factory=Schedule)
    search: Search = field(default_factory=Search)
    objective: Objective = field(default_factory=lambda: Objective.of("sharpe"))
    threshold: float = WFO_THRESHOLD

    def as_json(self) -> dict[str, Any]:
        """All that decides what is chosen, as it is stored in the configuration of a run."""
        schedule = self.schedule
        return {
            "train": _length(schedule.train),
            "test": _length(schedule.test),
            "mode": schedule.mode,
            "purge": schedule.purge,
            "embargo": schedule.embargo,
            "search": self.search.method,
            "max_combinations": self.search.most,
            "seed": self.search.seed,
            "objective": dict(self.objective.weights),
        }


def _length(length: float | str | timedelta) -> float | str:
    return str(length) if isinstance(length, timedelta) else length


def tasks_of(panel: Panel, asset: str, schedule: Schedule, keep: np.ndarray) -> list[Task]:
    """The folds of an asset, on those of its bars where `keep`, bool `(n_rows,)`, holds.

    Raises:
        InvalidInput: where these bars do not fill one fold.
    """
    rows = panel.rows_of(asset)
    before = int(np.argmax(keep[rows])) if keep[rows].any() else 0
    return [
        Task(asset, replace(fold, train=fold.train + before, test=fold.test + before))
        for fold in schedule.folds(panel.take(keep), asset)
    ]


def fold_keys(panel: Panel, tasks: Sequence[Task], question: Question, asked: Asked) -> list[str]:
    """A hash for each fold of all that decides it.

    Of the data that is every bar from the first to the last of its test, and none after: bars
    that are appended leave the folds before them as they are.
    """
    space = question.space
    about = {
        "signal_type": space.strategy.signal_type,
        "axes": {name: list(axis) for name, axis in space.axes.items()},
        "search": vars(question.search),
        "objective": dict(question.objective.weights),
        "simulation": simulation_config(question.config),
        "code": [code_version(*asked.rooms), *engine_identity()],
        "timeframe": panel.timeframe.name,
    }
    keys = []
    hashes: dict[str, list[tuple[int, str]]] = {}
    for asset in dict.fromkeys(task.asset for task in tasks):
        ends = sorted({t.windows(panel)[1].stop for t in tasks if t.asset == asset})
        hashes[asset] = _content_until(panel, panel.rows_of(asset).start, ends)
    for task in tasks:
        train, test = task.windows(panel)
        content = dict(hashes[task.asset])[test.stop]
        funding = question.funding.version(task.asset) if question.funding else None
        bounds = [int(panel.ts[row]) for row in (train.start, train.stop - 1, test.start)]
        keys.append(hash_of([about, task.asset, funding, bounds, content]))
    return keys


def _content_until(panel: Panel, first: int, ends: Sequence[int]) -> list[tuple[int, str]]:
    """Hash of an asset's rows up to each end; the rows of one end are hashed once for all."""
    digests = []
    content = hashlib.blake2b(canonical_json(sorted(panel.columns)).encode(), digest_size=16)
    for end in ends:
        content.update(panel.ts[first:end].tobytes())
        for name in sorted(panel.columns):
            content.update(np.ascontiguousarray(panel[name][first:end], "<f8").tobytes())
        digests.append((end, content.copy().hexdigest()))
        first = end
    return digests


def folds_of(
    workspace: Workspace,
    panel: Panel,
    tasks: Sequence[Task],
    question: Question,
    asked: Asked,
    run_ids: Mapping[str, UUID],
    ids: Mapping[str, int],
    dataset_versions: Mapping[str, str],
    *,
    rebuild: bool = False,
) -> list[Chosen]:
    """What each fold came to; each block of them is stored, with its trials, when it is done.

    Args:
        workspace: the open store.
        panel, tasks, question: as `research.walk_forward.choose` takes them.
        asked: what the runs assume.
        run_ids: of the stitched runs, by asset.
        ids: of the assets.
        dataset_versions: of the features, by asset.
        rebuild: compute also what is stored.
    """
    keys = fold_keys(panel, tasks, question, asked)
    with workspace.database.begin() as connection:
        known = {} if rebuild else finished_folds(connection, keys)
    name = f"folds {question.space.strategy.signal_type}"
    chosen: dict[str, Chosen] = {}

    def keep(
        done: Sequence[Task], computed_at: Mapping[str, datetime], trials: list[pa.Table]
    ) -> None:
        rows = [
            _fold_row(
                panel,
                task,
                chosen[key_of[id(task)]],
                question,
                run_id=run_ids[task.asset],
                asset_id=ids[task.asset],
                key=key_of[id(task)],
                computed_at=computed_at[key_of[id(task)]],
            )
            for task in done
        ]
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            for table in trials:
                record_trials(cursor, table)
            store_folds(cursor, _fold_table(rows))

    key_of = {id(task): key for task, key in zip(tasks, keys, strict=True)}
    chosen.update({key: _chosen_of(row, question.space) for key, row in known.items()})
    workspace.progress(name, len(chosen), len(tasks))
    # Of an earlier run, such as that on the bars before some were appended.
    elsewhere = [
        task
        for task, key in zip(tasks, keys, strict=True)
        if key in known and known[key]["run_id"] != run_ids[task.asset]
    ]
    if elsewhere:
        keep(elsewhere, {key: row["computed_at"] for key, row in known.items()}, [])
    todo = [task for task, key in zip(tasks, keys, strict=True) if key not in known]
    for block in blocks_of_tasks(todo, question):
        trials: list[pa.Table] = []
        ledger = partial(_enter_trials, trials, question, asked, dataset_versions)
        part = panel.select(list(dict.fromkeys(task.asset for task in block)))
        found = choose(part, block, question, ledger)
        chosen.update({key_of[id(task)]: one for task, one in zip(block, found, strict=True)})
        keep(block, dict.fromkeys(keys, datetime.now(UTC)), trials)
        workspace.progress(name, len(chosen), len(tasks))
    return [chosen[key] for key in keys]


def _enter_trials(
    trials: list[pa.Table],
    question: Question,
    asked: Asked,
    dataset_versions: Mapping[str, str],
    batch: BatchResult,
    combinations: Sequence[Sequence[Combination]],
) -> None:
    """Add the ledger's rows of a simulation; windows with the same combinations go together."""
    together: dict[tuple[Combination, ...], list[int]] = {}
    for window, own in enumerate(combinations):
        if own:
            together.setdefault(tuple(own), []).append(window)
    shape = (batch.equity.shape[0], len(batch.panel.assets))
    offsets = batch.panel.offsets
    for own, windows in together.items():
        panel = batch.panel.windows([slice(offsets[w], offsets[w + 1]) for w in windows])
        rows = np.concatenate([np.arange(offsets[w], offsets[w + 1]) for w in windows])
        n = len(own)
        part = replace(
            batch,
            panel=panel,
            equity=batch.equity[:n][:, rows],
            metrics={
                name: values.reshape(shape)[:n, windows].ravel()
                for name, values in batch.metrics.items()
            },
        )
        days = panel.ts.view("M8[us]").astype("M8[D]")
        bounds = [
            Window(days[a].item(), (days[b - 1] + 1).item())
            for a, b in zip(panel.offsets[:-1], panel.offsets[1:], strict=True)
        ]
        trials.append(
            trials_of(
                part,
                [question.space.params(combination) for combination in own],
                signal_type=question.space.strategy.signal_type,
                dataset_versions=dataset_versions,
                asked=asked,
                source="walk_forward",
                windows=bounds,
            )
        )


def _fold_row(
    panel: Panel,
    task: Task,
    chosen: Chosen,
    question: Question,
    *,
    run_id: UUID,
    asset_id: int,
    key: str,
    computed_at: datetime,
) -> dict[str, Any]:
    train, test = task.windows(panel)
    combination = chosen.combination
    return {
        "run_id": str(run_id),
        "fold": task.fold.number,
        "fold_key": key,
        "signal_type": question.space.strategy.signal_type,
        "id": asset_id,
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


def _fold_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    stamp = pa.timestamp("us", "UTC")
    text = ("run_id", "fold_key", "signal_type", "symbol", "tf", "status", "params", "objective")
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


def _chosen_of(row: Mapping[str, Any], space: ParameterSpace) -> Chosen:
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
