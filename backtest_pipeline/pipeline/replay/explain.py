"""Explains why two runs differ, by swapping data, code and configuration one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID

import numpy as np

from backtest_pipeline.market.errors import ArtifactCorrupt, CannotReplay
from backtest_pipeline.pipeline.replay.factors import (
    OF_DATA,
    code_words,
    config_words,
    data_words,
    environment_words,
)
from backtest_pipeline.pipeline.replay.replay import sources_of
from backtest_pipeline.pipeline.replay.worker_process import ReplayRequest, recompute
from backtest_pipeline.pipeline.runs.differences import (
    first_differing_bar,
    stamp,
    trade_difference,
)
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.simulation.metrics.benchmarks import BENCHMARKS
from backtest_pipeline.storage.artifacts.code_archive import code_on_disk, read_code
from backtest_pipeline.storage.run_tables.recorded_runs import (
    RecordedRun,
    find_run_id,
    recorded_runs,
    stored_metrics,
)
from backtest_pipeline.storage.tables.environment import recorded_environments

FACTORS = ("data", "code", "config")
_MEASURES = ("total_return", "sharpe", "trade_count")
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Move:
    """The change of a result when one factor is swapped.

    Attributes:
        total_return, sharpe, trade_count: change of the metric; None where undefined.
        first_trade: the first trade that differs, in words; None where none does.
        first_bar: close of the first bar whose equity differs; None where none does.
        error: why the result cannot be computed; empty where it was.
    """

    total_return: float | None = None
    sharpe: float | None = None
    trade_count: float | None = None
    first_trade: str | None = None
    first_bar: str | None = None
    error: str = ""

    @property
    def moved(self) -> bool:
        """Whether trades or equity changed."""
        return self.first_trade is not None or self.first_bar is not None


@dataclass(frozen=True)
class Factor:
    """One of the factors that determine a result.

    Attributes:
        name: `data`, `code`, `config` or `environment`.
        is_equal: whether it is the same in both runs, so that it is not swapped.
        differences: what differs, in words.
        forward: change of A's result when A gets B's factor; None where it was not swapped.
        backward: change to B's result from B with A's factor; None where it was not swapped.
    """

    name: str
    is_equal: bool
    differences: tuple[str, ...]
    forward: Move | None = None
    backward: Move | None = None

    @property
    def moved(self) -> bool:
        """Whether swapping it changes the result, in either direction."""
        return any(move is not None and move.moved for move in (self.forward, self.backward))


@dataclass(frozen=True)
class Explanation:
    """Why two runs differ.

    Attributes:
        a, b: their ids.
        names: signal, asset and timeframe of each.
        total: change from A to B, both recomputed here.
        factors: data, code, config, environment.
        interaction: by metric, the change by all factors together less the sum of their single
            changes to A; empty where fewer than two factors differ, or one cannot be swapped.
        remainder: what remains unexplained, in words; empty where nothing does.
    """

    a: UUID
    b: UUID
    names: tuple[str, str]
    total: Move
    factors: tuple[Factor, ...]
    interaction: Mapping[str, float]
    remainder: tuple[str, ...]

    @property
    def movers(self) -> tuple[str, ...]:
        """Names of the factors that change the result."""
        return tuple(factor.name for factor in self.factors if factor.moved)

    @property
    def interacts(self) -> bool:
        """Whether the factors' joint change differs from the sum of their single changes."""
        return any(abs(value) > _ROUNDING for value in self.interaction.values())


def explain_diff(a: UUID | str, b: UUID | str) -> Explanation:
    """Find which of data, code and configuration makes two stored runs differ.

    Both are recomputed in fresh processes with one factor swapped at a time, from A towards B and
    from B towards A; equal factors are not swapped.

    Args:
        a, b: the runs, or the beginning of each id.

    Raises:
        RunNotFound: for a run that is not stored.
        ProvenanceMissing: for a run without recorded inputs.
        CannotReplay, ArtifactCorrupt: where a run cannot be recomputed, with the reason.
    """
    with open_workspace() as workspace:
        return explain_runs(workspace, a, b)


def explain_runs(workspace: Workspace, a: UUID | str, b: UUID | str) -> Explanation:
    """As `explain_diff`, in an open store."""
    with workspace.database.begin() as connection:
        ids = [x if isinstance(x, UUID) else find_run_id(connection, x) for x in (a, b)]
        one, other = recorded_runs(connection, ids)
        known = recorded_environments(connection, [r.environment_hash for r in (one, other)])
        stored = [stored_metrics(connection, run_id) for run_id in ids]
    runs = (one, other)
    if bool(one.plans) != bool(other.plans):
        follows, alone = (one, other) if one.plans else (other, one)
        raise CannotReplay(
            f"{follows.name} follows plans and {alone.name} a strategy: no factor can be swapped; "
            "use `runs compare` to see both side by side"
        )
    codes, not_here = _codes(workspace, runs)
    words = {
        "data": data_words(workspace, *runs),
        "code": code_words(workspace, runs, codes),
        "config": config_words(*runs),
    }
    differing = [name for name in FACTORS if words[name]]
    results = _computed(workspace, runs, codes, differing)
    for side in (0, 1):
        if "error" in results[_corner(side)]:
            raise CannotReplay(f"{runs[side].name}: {results[_corner(side)]['error']}")
    factors = [_factor(name, words[name], differing, results) for name in FACTORS]
    elsewhere = environment_words(runs, known)
    factors.append(Factor("environment", not elsewhere, tuple(elsewhere)))
    total = _move(results[_corner(0)], results[_corner(1)])
    return Explanation(
        a=one.run_id,
        b=other.run_id,
        names=(one.name, other.name),
        total=total,
        factors=tuple(factors),
        interaction=_interaction(total, factors, differing),
        remainder=(*not_here, *_remainder(runs, stored, results, elsewhere)),
    )


_Sides = tuple[int, int, int]
"""Which run the data, code and configuration come from: 0 is A, 1 is B."""


def _corner(side: int) -> _Sides:
    return (side, side, side)


def _codes(
    workspace: Workspace, runs: Sequence[RecordedRun]
) -> tuple[tuple[str, str], tuple[str, ...]]:
    """The source archives of both runs; today's code and a remark where one is unavailable."""
    try:
        first, second = (sources_of(run) for run in runs)
        for uri in {first, second} - {code_on_disk().uri}:
            read_code(workspace.artifacts, uri)
    except (CannotReplay, ArtifactCorrupt) as error:
        uri = code_on_disk().uri
        return (uri, uri), (f"the code cannot be swapped, so both run on today's code: {error}",)
    return (first, second), ()


def _computed(
    workspace: Workspace,
    runs: Sequence[RecordedRun],
    codes: Sequence[str],
    differing: Sequence[str],
) -> dict[_Sides, Mapping[str, Any]]:
    """The result of every combination of the factors that differ; equal ones are A's."""
    axes = [(0, 1) if name in differing else (0,) for name in FACTORS]
    mixtures: list[_Sides] = list(product(*axes))  # pyright: ignore[reportAssignmentType]
    results: dict[_Sides, Mapping[str, Any]] = {}
    for code in axes[1]:
        own = [sides for sides in mixtures if sides[1] == code]
        specs = [_mixed(runs, sides) for sides in own]
        response = recompute(workspace.artifacts, codes[code], specs, series=True)
        results |= {sides: response.runs[_key(sides)] for sides in own}
        workspace.progress("explain", len(results), len(mixtures))
    whole = {}
    for sides in product((0, 1), repeat=len(FACTORS)):
        nearest = tuple(s if n in differing else 0 for n, s in zip(FACTORS, sides, strict=True))
        whole[sides] = results[nearest]  # pyright: ignore[reportArgumentType]
    return whole


def _key(sides: _Sides) -> str:
    return "".join("AB"[side] for side in sides)


def _mixed(runs: Sequence[RecordedRun], sides: _Sides) -> ReplayRequest:
    """The configuration of one run on the data of another."""
    data, code, assumed = (runs[side] for side in sides)
    of_data = {name: data.config[name] for name in OF_DATA if name in data.config}
    config = {**assumed.config, **of_data}
    # If both runs have the same benchmark, the rows it is built from are part of the data.
    benchmark = data if data.config["benchmark"] == config["benchmark"] else assumed
    snapshots = ReplayRequest.of(data).own_snapshots
    if (data.asset, data.timeframe) == (assumed.asset, assumed.timeframe):
        # Columns that only the other run's strategy reads.
        snapshots = {**ReplayRequest.of(assumed).own_snapshots, **snapshots}
    if config["benchmark"] not in BENCHMARKS:
        others = ReplayRequest.of(benchmark)
        beside = others.snapshots.keys() - others.own_snapshots.keys()
        snapshots = {**{name: others.snapshots[name] for name in beside}, **snapshots}
    same = code.config["strategy"] == assumed.config["strategy"]
    files = (code if same else assumed).strategy_files
    return ReplayRequest(
        _key(sides), config, data.asset, data.timeframe, snapshots, files, assumed.plans
    )


def _factor(
    name: str,
    words: Sequence[str],
    differing: Sequence[str],
    results: Mapping[_Sides, Mapping[str, Any]],
) -> Factor:
    if name not in differing:
        return Factor(name, True, ())
    at = FACTORS.index(name)

    def swapped(side: int) -> _Sides:
        sides = [side, side, side]
        sides[at] = 1 - side
        return (sides[0], sides[1], sides[2])

    return Factor(
        name,
        False,
        tuple(words),
        forward=_move(results[_corner(0)], results[swapped(0)]),
        backward=_move(results[swapped(1)], results[_corner(1)]),
    )


def _move(before: Mapping[str, Any], after: Mapping[str, Any]) -> Move:
    """The change from one result to another."""
    errors = [side["error"] for side in (before, after) if "error" in side]
    if errors:
        return Move(error=errors[0])
    curves = [
        (np.array(side["equity"]["ts"]), np.array(side["equity"]["values"], np.float64))
        for side in (before, after)
    ]
    bar = first_differing_bar(curves[0], curves[1])
    return Move(
        total_return=_change(before, after, "total_return"),
        sharpe=_change(before, after, "sharpe"),
        trade_count=_change(before, after, "trade_count"),
        first_trade=trade_difference(before["trades"], after["trades"], names=("before", "after")),
        first_bar=None if bar is None else stamp(bar),
    )


def _change(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> float | None:
    values = [side["metrics"][name] for side in (before, after)]
    return None if None in values else values[1] - values[0]


def _interaction(
    total: Move, factors: Sequence[Factor], differing: Sequence[str]
) -> dict[str, float]:
    alone = [factor.forward for factor in factors if factor.forward is not None]
    if len(differing) < 2 or any(move.error for move in alone):
        return {}
    interaction = {}
    for name in _MEASURES:
        values = [getattr(move, name) for move in (total, *alone)]
        if None not in values:
            interaction[name] = values[0] - sum(values[1:])
    return interaction


def _remainder(
    runs: Sequence[RecordedRun],
    stored: Sequence[Mapping[str, Any]],
    results: Mapping[_Sides, Mapping[str, Any]],
    elsewhere: Sequence[str],
) -> list[str]:
    """How the runs recomputed here differ from the stored ones, in words."""
    words = []
    for side, run in enumerate(runs):
        here = results[_corner(side)]
        apart = [
            f"{name} {stored[side].get(name)} stored and {here['metrics'][name]} here"
            for name in _MEASURES
            if stored[side].get(name) != here["metrics"][name]
        ]
        if here["fingerprint"] != run.fingerprint or apart:
            what = "; ".join(apart) or "return, Sharpe ratio and number of trades are equal"
            words.append(f"the stored result of {'AB'[side]} differs from the one here: {what}")
    sources = {run.code_archive for run in runs}
    if words and len(sources) > 1 and runs[0].code_version == runs[1].code_version:
        words.append(
            f"both declare {runs[0].code_version} but their source code differs, and A's ran for "
            "both: the rest may be an undeclared change of the code"
        )
    if words and elsewhere:
        words.append(
            "engine and environment cannot be swapped here and may cause the rest: replay each "
            "run where its own packages are installed"
        )
    return words
