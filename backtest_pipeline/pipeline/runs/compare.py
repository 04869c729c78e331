"""Stored runs side by side: their specs, inputs and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.runs.differences import leaves
from backtest_pipeline.pipeline.runs.query import RunDetail, get_run
from backtest_pipeline.pipeline.workspace import Workspace

_OF_CODE = ("code_version", "code_archive", "engine", "engine_version", "environment_hash")


@dataclass(frozen=True)
class Compared:
    """One setting, metric or version, with its value in each run.

    Attributes:
        name: a path such as `costs.fee_bps`, a metric, a partition, or a column.
        values: in the order of the runs; None where a run has none.
        changes: for a metric, each value minus the first run's; None where one is undefined.
    """

    name: str
    values: tuple[Any, ...]
    changes: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class RunComparison:
    """Two or more runs side by side; except for `metrics`, only what differs.

    Attributes:
        runs: in the order given.
        config: settings of the specs, and what `n_trials` counts.
        metrics: all metrics, and their significance given all trials.
        data: versions of the features read, by partition.
        code: code, engine and environment.
        results_are_equal: whether all have the same trades and equity, bit by bit.
    """

    runs: tuple[RunDetail, ...]
    config: tuple[Compared, ...]
    metrics: tuple[Compared, ...]
    data: tuple[Compared, ...]
    code: tuple[Compared, ...]
    results_are_equal: bool


def require_different(runs: Sequence[UUID | str]) -> None:
    """Raise InvalidInput for fewer than two runs, or one that is named twice."""
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise InvalidInput("a comparison needs two or more different runs: give each run once")


def compare_runs(workspace: Workspace, run_ids: Sequence[UUID]) -> RunComparison:
    """Compare stored runs side by side; `explain_diff` computes why they differ.

    Raises:
        InvalidInput: for fewer than two runs.
        RunNotFound, ProvenanceMissing, ResultPathMissing: as `get_run` raises.
    """
    require_different(run_ids)
    runs = tuple(get_run(workspace, run_id) for run_id in run_ids)
    made_from = [run.provenance for run in runs]
    return RunComparison(
        runs=runs,
        config=_differing(
            [{**dict(leaves(run.config)), "counting_rule": run.counting_rule.value} for run in runs]
        ),
        metrics=tuple(
            _measured(name, values)
            for name, values in _side_by_side([{**run.metrics, **run.significance} for run in runs])
        ),
        data=_differing([made["dataset_version_ids"] for made in made_from]),
        code=_differing([{name: made[name] for name in _OF_CODE} for made in made_from]),
        results_are_equal=len({made["result_fingerprint"] for made in made_from}) == 1,
    )


def _side_by_side(
    sides: Sequence[Mapping[str, Any]],
) -> Iterable[tuple[str, tuple[Any, ...]]]:
    names = dict.fromkeys(name for side in sides for name in side)
    return ((name, tuple(side.get(name) for side in sides)) for name in names)


def _differing(sides: Sequence[Mapping[str, Any]]) -> tuple[Compared, ...]:
    return tuple(
        Compared(name, values)
        for name, values in sorted(_side_by_side(sides), key=lambda pair: pair[0])
        if any(value != values[0] for value in values)
    )


def _measured(name: str, values: tuple[float | None, ...]) -> Compared:
    base = values[0]
    changes = tuple(None if base is None or v is None else v - base for v in values)
    return Compared(name, values, changes)
