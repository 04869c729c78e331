"""Negative controls: measure and store the false-positive rate of searches on random markets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.ranking.leaderboard import DEFAULT_GATES
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.runs.summary import Summary, rounded
from backtest_pipeline.pipeline.stages.features import load_batch
from backtest_pipeline.pipeline.versions import negative_controls_code
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.ranking.leaderboard import Gate, gates_of
from backtest_pipeline.research.ranking.negative_controls import (
    Verdicts,
    search,
    search_grids,
    verdicts,
    walk_forwards_pass,
)
from backtest_pipeline.research.ranking.random_markets import (
    BarMoves,
    RandomMarket,
    bar_moves,
    random_markets,
)
from backtest_pipeline.research.robustness.draws import require_draws
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.run_tables.leaderboard import (
    controls_of,
    gate_set,
    publish_controls,
    symbols_with_bars,
)
from backtest_pipeline.trading.costs import CostModel

MOST_FALSE = 0.05
"""Highest share of searches without an edge that may be called significant, a fraction."""
FREE = SimulationConfig(costs=CostModel(fee_bps=0.0, slippage_bps=0.0))
"""No trading costs in a control: costs would push lucky results down and flatter the rate."""
_BATCH = 50  # searches at a time
# One batch in this many also runs walk-forwards, which take four times as long as its searches.
_WALK_FORWARD_EVERY = 5
_TF = "1D"
_JUDGED = ("rate", "run_rate", "walk_forward_rate")


@dataclass(frozen=True)
class Controls:
    """Settings of the negative controls.

    Attributes:
        searches: number of searches in each kind of random market.
        n_bars: daily bars of each market.
        seed: seed of the random numbers.
        gates: name of a registered gate set.
    """

    searches: int = 1000
    n_bars: int = 1461
    seed: int = 0
    gates: str = DEFAULT_GATES

    def __post_init__(self) -> None:
        require_draws(self.searches, self.seed)
        if self.n_bars < 2:
            raise InvalidInput(f"n_bars must be at least 2, not {self.n_bars!r}")


@retried
def run_negative_controls(
    workspace: Workspace, controls: Controls, *, rebuild: bool = False
) -> Sequence[Mapping[str, Any]]:
    """Search random markets modelled on the stored bars, and store how many looked significant.

    Results already stored for the same settings, bars and code are returned as they are.

    Args:
        workspace: an open store with daily bars.
        controls: number of searches, bars, seed and gates.
        rebuild: search again even if results are stored.

    Returns:
        Rows of `negative_controls` with the name of the gate set, one per kind of market.

    Raises:
        InvalidInput: where no daily bars are stored, or their prices never change.
        UnknownName: for a gate set that is not registered.
    """
    with workspace.database.begin() as connection:
        gates = gate_set(connection, controls.gates)
        symbols = symbols_with_bars(connection, _TF, workspace.price_dataset)
    batch = load_batch(
        workspace, workspace.price_dataset, _TF, symbols, ("open", "high", "low", "close")
    )
    code = negative_controls_code()
    versions = sorted((asset, version.version) for asset, version in batch.inputs.items())
    about = [controls.searches, controls.n_bars, controls.seed, gates.gate_set_id, code]
    control_id = hash_of([*about, versions])
    stored = _stored(workspace, control_id)
    if stored and not rebuild:
        return stored
    universe = bar_moves(batch.panel)
    rows = [
        {
            "control_id": control_id,
            "world": kind.value,
            "seed": controls.seed,
            "n_bars": controls.n_bars,
            "n_assets": len(universe),
            "n_trials": sum(map(len, search_grids())),
            **_counts(_believed(workspace, kind, universe, controls, gates_of(gates.gates))),
            "gate_set_id": gates.gate_set_id,
            "code_version": code,
            "created_at": datetime.now(UTC),
        }
        for kind in RandomMarket
    ]
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        publish_controls(cursor, pa.Table.from_pylist(rows))
    return _stored(workspace, control_id)


def _counts(result: Verdicts) -> dict[str, Any]:
    rates = {name: getattr(result, name) for name in (*_JUDGED, "upper_bound")}
    return {**vars(result), **rates}


def _stored(workspace: Workspace, control_id: str | None) -> list[Mapping[str, Any]]:
    with workspace.database.begin() as connection:
        return controls_of(connection, control_id)


@retried
def newest_controls(workspace: Workspace) -> Sequence[Mapping[str, Any]]:
    """The rows of the newest control; empty where none was run."""
    return _stored(workspace, None)


def _believed(
    workspace: Workspace,
    kind: RandomMarket,
    universe: Sequence[BarMoves],
    controls: Controls,
    gates: Sequence[Gate],
) -> Verdicts:
    """The verdicts of all searches, run in batches to bound memory and to react to Ctrl-C."""
    grids = search_grids()
    like = _calendar(controls.n_bars)
    stage = f"searching {kind.value.replace('_', ' ')}"

    def verdicts_of(first: int) -> Verdicts:
        draws = range(first, min(first + _BATCH, controls.searches))
        bars = random_markets(kind, universe, like, draws, controls.seed)
        walk_forwards = (
            walk_forwards_pass(bars, grids, FREE)
            if first % (_WALK_FORWARD_EVERY * _BATCH) == 0
            else None
        )
        return verdicts(search(bars, grids, FREE), gates, walk_forwards)

    done = []
    workspace.progress(stage, 0, controls.searches)
    with ThreadPoolExecutor(workspace.workers) as pool:
        for result in pool.map(verdicts_of, range(0, controls.searches, _BATCH)):
            done.append(result)
            workspace.progress(stage, sum(v.n_searches for v in done), controls.searches)
    return reduce(add, done)


def _calendar(n_bars: int) -> Panel:
    """A panel of daily timestamps; the actual dates do not matter."""
    daily = timeframe(_TF)
    days = np.datetime64("2020-01-01", "us") + np.arange(n_bars) * np.timedelta64(1, "D")
    ends = daily.period_bounds(days.astype("M8[us]").astype(np.int64))[1]
    return Panel(daily, ("world",), np.array([0, n_bars]), ends - 1, {})


def believes_too_much(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any false-positive rate is above MOST_FALSE, in any kind of market."""
    return any(row[name] > MOST_FALSE for row in rows for name in _JUDGED)


def controls_summary(rows: Sequence[Mapping[str, Any]]) -> Summary:
    """False-positive rates by kind of market, with and without the corrections."""
    return Summary(
        {"searches": sum(row["n_searches"] for row in rows), "highest_rate_allowed": MOST_FALSE},
        {"false_positives": shown_controls(rows)},
    )


def shown_controls(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of controls as a table for display, rates as fractions."""
    return [
        {
            "world": row["world"],
            "searches": row["n_searches"],
            "trials_each": row["n_trials"],
            "best_by_psr": rounded(row["n_naive"] / row["n_searches"]),
            "dsr_in_family": rounded(row["n_in_family"] / row["n_searches"]),
            "best_run": rounded(row["run_rate"]),
            "walk_forward": rounded(row["walk_forward_rate"]),
            "rate": rounded(row["rate"]),
            "upper_bound": rounded(row["upper_bound"]),
            "passed_gates": rounded(row["n_passed"] / row["n_searches"]),
        }
        for row in rows
    ]
