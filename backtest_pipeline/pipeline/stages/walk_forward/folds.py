"""Folds of a batch: which are stored already, and those that are not, computed and stored."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.ranking.ledger import trials_of, window_of
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
    canonical_json,
    hash_of,
    simulation_config,
    without_defaults,
)
from backtest_pipeline.pipeline.versions import run_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.choices import method_of
from backtest_pipeline.research.validation.efficiency import WFO_THRESHOLD
from backtest_pipeline.research.validation.optimizer import Combination, Objective, Search
from backtest_pipeline.research.validation.schedule import FixedDates, Schedule, Task, schedule_of
from backtest_pipeline.research.validation.walk_forward import (
    FOLD_METRICS,
    Chosen,
    Question,
    batches_of_tasks,
    choose,
)
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.marks import marks_of
from backtest_pipeline.simulation.rules import config_of_all
from backtest_pipeline.storage.run_tables.trials import record_trials
from backtest_pipeline.storage.run_tables.walk_forward import finished_folds, store_folds
from backtest_pipeline.strategies.grid import ParameterSpace


@dataclass(frozen=True)
class WalkForwardPlan:
    """How a walk-forward is done, beside the parameters and what is assumed.

    Attributes:
        schedule: training and test windows.
        search: how the parameters are searched.
        objective: what the best has most of.
        threshold: efficiency below which it is flagged.
        flat_starts: whether test windows begin flat, and not with what the choice holds by then.
    """

    schedule: Schedule | FixedDates = field(default_factory=Schedule)
    search: Search = field(default_factory=Search)
    objective: Objective = field(default_factory=lambda: Objective.of("sharpe"))
    threshold: float = WFO_THRESHOLD
    flat_starts: bool = False

    def question(
        self, space: ParameterSpace, config: SimulationConfig, funding: FundingRates | None = None
    ) -> Question:
        """What it looks for among the parameters of a strategy."""
        return Question(space, self.search, self.objective, config, funding, self.flat_starts)

    def as_json(self) -> dict[str, Any]:
        """All that decides what is chosen, as it is stored in the configuration of a run."""
        return {
            **self.schedule.as_json(),
            "search": self.search.method,
            "max_combinations": self.search.most,
            "seed": self.search.seed,
            "objective": dict(self.objective.weights),
            "flat_starts": self.flat_starts,
        }

    @staticmethod
    def of_json(stored: Mapping[str, Any]) -> WalkForwardPlan:
        """The plan that `as_json` gave; the threshold decides nothing that is chosen."""
        return WalkForwardPlan(
            schedule_of(stored),
            Search(method_of(stored["search"]), stored["max_combinations"], stored["seed"]),
            Objective("of a stored plan", stored["objective"]),
            flat_starts=stored["flat_starts"],
        )


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


def fold_keys(
    panel: Panel, tasks: Sequence[Task], question: Question, terms: RunTerms
) -> list[str]:
    """A hash for each fold of all that decides it.

    Of the data that is every bar from the first to the last of its test, and none after: bars
    that are appended leave the folds before them as they are.
    """
    space = question.space
    about = {
        "strategy": space.strategy.name,
        "axes": {name: list(axis) for name, axis in space.axes.items()},
        "search": vars(question.search),
        "objective": dict(question.objective.weights),
        "flat_starts": question.flat_starts,
        "simulation": without_defaults(
            simulation_config(config_of_all(question.config, space.strategy))
        ),
        "code": run_code(space.strategy.name, is_walk_forward=True, engine=question.config.engine),
        "timeframe": panel.timeframe.name,
    }
    funding = question.funding
    windows = [task.windows(panel) for task in tasks]
    content: dict[tuple[str, int], str] = {}
    for asset in dict.fromkeys(task.asset for task in tasks):
        ends = [
            test.stop for task, (_, test) in zip(tasks, windows, strict=True) if task.asset == asset
        ]
        digests = _content_until(panel, panel.rows_of(asset).start, sorted(set(ends)))
        content |= {(asset, end): digest for end, digest in digests}
    return [
        hash_of(
            [
                about,
                task.asset,
                funding.version(task.asset) if funding else None,
                panel.ts[[train.start, train.stop - 1, test.start]].tolist(),
                content[task.asset, test.stop],
            ]
        )
        for task, (train, test) in zip(tasks, windows, strict=True)
    ]


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
    terms: RunTerms,
    destinations: Mapping[str, Destination],
    *,
    rebuild: bool = False,
) -> list[Chosen]:
    """The result of each fold; each batch of them is stored, with its trials, when it is done.

    Args:
        workspace: the open store.
        panel, tasks, question: as `research.validation.walk_forward.choose` takes them.
        terms: what the runs assume.
        destinations: by asset.
        rebuild: compute also what is stored.
    """
    keyed = list(zip(fold_keys(panel, tasks, question, terms), tasks, strict=True))
    with workspace.database.begin() as connection:
        known = {} if rebuild else finished_folds(connection, [key for key, _ in keyed])
    chosen = {key: _chosen_of(row, question.space) for key, row in known.items()}
    name = f"folds {question.space.strategy.name}"
    workspace.progress(name, len(chosen), len(tasks))

    def store(done: Sequence[tuple[str, Task, datetime]], trials: Sequence[pa.Table]) -> None:
        rows = [
            _fold_row(panel, task, key, chosen[key], question, destinations[task.asset], at)
            for key, task, at in done
        ]
        with workspace.database.writing() as connection, connection.cursor() as cursor:
            for table in trials:
                record_trials(cursor, table)
            store_folds(cursor, _fold_table(rows))

    # Of an earlier run, such as that on the bars before some were appended.
    elsewhere = [
        (key, task, known[key]["computed_at"])
        for key, task in keyed
        if key in known and known[key]["run_id"] != destinations[task.asset].run_id
    ]
    if elsewhere:
        store(elsewhere, [])
    key_of = {id(task): key for key, task in keyed if key not in known}
    todo = [task for key, task in keyed if key not in known]
    versions = {asset: place.dataset_version for asset, place in destinations.items()}
    for batch in batches_of_tasks(todo, question):
        trials: list[pa.Table] = []
        ledger = partial(enter_trials, trials, panel, question, terms, versions)
        part = panel.select(list(dict.fromkeys(task.asset for task in batch)))
        keys = [key_of[id(task)] for task in batch]
        chosen |= zip(keys, choose(part, batch, question, ledger), strict=True)
        now = datetime.now(UTC)
        store([(key, task, now) for key, task in zip(keys, batch, strict=True)], trials)
        workspace.progress(name, len(chosen), len(tasks))
    return [chosen[key] for key, _ in keyed]


def enter_trials(
    trials: list[pa.Table],
    history: Panel,
    question: Question,
    terms: RunTerms,
    dataset_versions: Mapping[str, str],
    simulated: BatchResult,
    combinations: Sequence[Sequence[Combination]],
) -> None:
    """Add the ledger's rows of a simulation; windows with the same combinations go together."""
    together: dict[tuple[Combination, ...], list[int]] = {}
    for window, own in enumerate(combinations):
        if own:
            together.setdefault(tuple(own), []).append(window)
    shape = (simulated.equity.shape[0], len(simulated.panel.assets))
    offsets = simulated.panel.offsets
    for own, windows in together.items():
        panel = simulated.panel.windows([slice(offsets[w], offsets[w + 1]) for w in windows])
        rows = np.concatenate([np.arange(offsets[w], offsets[w + 1]) for w in windows])
        n = len(own)
        part = replace(
            simulated,
            panel=panel,
            marks=marks_of(panel),
            equity=simulated.equity[:n][:, rows],
            metrics={
                name: values.reshape(shape)[:n, windows].ravel()
                for name, values in simulated.metrics.items()
            },
        )
        bounds = [
            window_of(history, asset, int(panel.ts[start]), int(panel.ts[end - 1]))
            for asset, (start, end) in zip(panel.assets, pairwise(panel.offsets), strict=True)
        ]
        trials.append(
            trials_of(
                part,
                [question.space.params(combination) for combination in own],
                strategy=question.space.strategy.name,
                dataset_versions=dataset_versions,
                terms=terms,
                source="walk_forward",
                windows=bounds,
            )
        )


def _fold_row(
    panel: Panel,
    task: Task,
    key: str,
    chosen: Chosen,
    question: Question,
    destination: Destination,
    computed_at: datetime,
) -> dict[str, Any]:
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


def _fold_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
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
