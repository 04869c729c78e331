"""Folds of a batch: which are stored already, and those that are not, computed and stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import StoreOvertaken, WorkGivenUp
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.pools.spread import is_spread, pieces_of
from backtest_pipeline.pipeline.pools.work_pool import PoolWork, done
from backtest_pipeline.pipeline.ranking.ledger import trials_of, window_of
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
    canonical_json,
    hash_of,
    simulation_config,
    without_defaults,
)
from backtest_pipeline.pipeline.stages.walk_forward.fold_rows import (
    Destination,
    chosen_of,
    fold_row,
    fold_table,
)
from backtest_pipeline.pipeline.versions import run_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.choices import method_of
from backtest_pipeline.research.validation.efficiency import WFO_THRESHOLD
from backtest_pipeline.research.validation.optimizer import Combination, Objective, Search
from backtest_pipeline.research.validation.schedule import FixedDates, Schedule, Task, schedule_of
from backtest_pipeline.research.validation.walk_forward import (
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

_DRAWING = 50_000  # bars in whose time the estimator draws a combination: ten milliseconds


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


Keyed = tuple[str, Chosen]
"""A fold's result, and the hash of all that decides it."""

Elsewhere = Callable[[Workspace, Sequence[int]], list[Keyed]]
"""Does the tasks at these positions, and stores them; can be pickled, and lays them out anew."""


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
    only: Sequence[int] | None = None,
    elsewhere: Elsewhere | None = None,
    rebuild: bool = False,
) -> list[Keyed]:
    """The result of each fold; each batch of them is stored, with its trials, when it is done.

    Many folds are left to the workers of the pool, which store them as well.

    Args:
        workspace: the open store.
        panel, tasks, question: as `research.validation.walk_forward.choose` takes them.
        terms: what the runs assume.
        destinations: by asset.
        only: positions of the tasks to do; all by default. Their keys follow from all tasks.
        elsewhere: does some of the tasks in another process; None where only this one can.
        rebuild: compute also what is stored.

    Raises:
        WorkGivenUp: where they are not wanted any more; what is done by then is stored.
    """
    all_keyed = list(zip(fold_keys(panel, tasks, question, terms), tasks, strict=True))
    keyed = all_keyed if only is None else [all_keyed[i] for i in only]
    with workspace.database.begin() as connection:
        known = {} if rebuild else finished_folds(connection, [key for key, _ in keyed])
    chosen = {key: chosen_of(row, question.space) for key, row in known.items()}
    name = f"folds {question.space.strategy.name}"
    workspace.progress(name, len(chosen), len(keyed))

    def store(done: Sequence[tuple[str, Task, datetime]], trials: Sequence[pa.Table]) -> None:
        rows = [
            fold_row(panel, task, key, chosen[key], question, destinations[task.asset], at)
            for key, task, at in done
        ]
        with workspace.database.writing() as connection, connection.cursor() as cursor:
            for table in trials:
                record_trials(cursor, table)
            store_folds(cursor, fold_table(rows))

    # Of an earlier run, such as that on the bars before some were appended.
    of_others = [
        (key, task, known[key]["computed_at"])
        for key, task in keyed
        if key in known and known[key]["run_id"] != destinations[task.asset].run_id
    ]
    if of_others:
        store(of_others, [])
    if elsewhere is not None:
        position = {key: i for i, (key, _) in enumerate(keyed) if key not in chosen}
        for found in _done_elsewhere(workspace, name, keyed, position, question, elsewhere):
            chosen |= dict(found)
            workspace.progress(name, len(chosen), len(keyed))
    key_of = {id(task): key for key, task in keyed if key not in chosen}
    todo = [task for key, task in keyed if key not in chosen]
    versions = {asset: place.dataset_version for asset, place in destinations.items()}
    for batch in batches_of_tasks(todo, question):
        if workspace.given_up.is_set():
            raise WorkGivenUp(f"{name}: the run was ended before all were done")
        trials: list[pa.Table] = []
        ledger = partial(enter_trials, trials, panel, question, terms, versions)
        part = panel.select(list(dict.fromkeys(task.asset for task in batch)))
        keys = [key_of[id(task)] for task in batch]
        chosen |= zip(keys, choose(part, batch, question, ledger), strict=True)
        now = datetime.now(UTC)
        store([(key, task, now) for key, task in zip(keys, batch, strict=True)], trials)
        workspace.progress(name, len(chosen), len(keyed))
    return [(key, chosen[key]) for key, _ in keyed]


def _done_elsewhere(
    workspace: Workspace,
    name: str,
    keyed: Sequence[tuple[str, Task]],
    position: Mapping[str, int],
    question: Question,
    elsewhere: Elsewhere,
) -> Iterator[list[Keyed]]:
    """What workers make of the folds at these positions, as it is done; nothing of a few."""
    todo = [(key, task) for key, task in keyed if key in position]
    if not is_spread(workspace.pool, _simulated_for([task for _, task in todo], question)):
        return
    # In the batches in which they would be computed here.
    sizes = map(len, batches_of_tasks([task for _, task in todo], question))
    left = iter([position[key] for key, _ in todo])
    batches = [list(islice(left, size)) for size in sizes]
    pieces = [[i for batch in piece for i in batch] for piece in pieces_of(workspace.pool, batches)]
    key_at = {at: key for key, at in position.items()}
    work = PoolWork(name, partial(elsewhere, workspace), elsewhere)
    for piece, found in done(workspace.pool, work, pieces):
        if [key for key, _ in found] != [key_at[i] for i in piece]:
            raise StoreOvertaken(f"{name}: a worker did folds of other bars; run it again")
        yield found


def _simulated_for(tasks: Sequence[Task], question: Question) -> int:
    """About how many bars are simulated to choose on these folds, by the time that it takes."""
    width = min(question.search.most, question.space.size)
    drawn = _DRAWING if question.search.resolved(question.space) == "tpe" else 0
    return width * sum(drawn + len(task.fold.train) for task in tasks)


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
