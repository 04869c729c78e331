"""Negative controls: how often searches of random markets find an edge, measured and stored.

That is the rate of false positives where there is no edge, and the power where one was planted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from backtest_pipeline.market.errors import InvalidInput, LooksAhead
from backtest_pipeline.pipeline.audits.market_searches import (
    DAILY,
    PRICES,
    Market,
    MarketSearches,
)
from backtest_pipeline.pipeline.look_ahead_guard import ends_of, refused_strategies
from backtest_pipeline.pipeline.ranking.leaderboard import DEFAULT_GATES
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.runs.summary import Summary, rounded
from backtest_pipeline.pipeline.stages.batch_files import BatchFiles
from backtest_pipeline.pipeline.stages.features import load_batch
from backtest_pipeline.pipeline.versions import negative_controls_code
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.ranking.leaderboard import gates_of
from backtest_pipeline.research.ranking.negative_controls import (
    Verdicts,
    search_grids,
)
from backtest_pipeline.research.ranking.planted_edges import PLANTED_STRATEGY
from backtest_pipeline.research.ranking.random_markets import (
    RandomMarket,
    bar_moves,
)
from backtest_pipeline.research.robustness.draws import require_draws
from backtest_pipeline.storage.run_tables.leaderboard import (
    controls_of,
    gate_set,
    publish_controls,
    symbols_with_bars,
)
from backtest_pipeline.strategies.grid import ParameterGrid
from backtest_pipeline.strategies.registry import strategies

MOST_FALSE = 0.05
"""Highest share of searches without an edge that may be called significant, a fraction."""
MOST_PLANTED = 10.0
"""Highest true yearly Sharpe ratio that is planted."""
_JUDGED = ("rate", "run_rate", "walk_forward_rate")


@dataclass(frozen=True)
class Controls:
    """Settings of the negative controls.

    Attributes:
        searches: number of searches in each kind of random market.
        n_bars: daily bars of each market.
        seed: seed of the random numbers.
        gates: name of a registered gate set.
        planted: true yearly Sharpe ratios of the edges that are planted, above 0; each adds as
            many searches in each kind of random market.
    """

    searches: int = 1000
    n_bars: int = 1461
    seed: int = 0
    gates: str = DEFAULT_GATES
    planted: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_draws(self.searches, self.seed)
        if self.n_bars < 2:
            raise InvalidInput(f"n_bars must be at least 2, not {self.n_bars!r}")
        for sharpe in self.planted:
            if not 0 < sharpe <= MOST_PLANTED:
                raise InvalidInput(
                    "planted Sharpe ratios must be above 0 and at most "
                    f"{MOST_PLANTED:g}, not {sharpe:g}"
                )
        if len(set(self.planted)) < len(self.planted):
            raise InvalidInput("each planted Sharpe ratio must be given once")


@retried
def run_negative_controls(
    workspace: Workspace, controls: Controls, *, rebuild: bool = False
) -> Sequence[Mapping[str, Any]]:
    """Search random markets modelled on the stored bars, and store how many looked significant.

    Results already stored for the same settings, bars and code are returned as they are.
    Strategies that look ahead have no results in the store, and are not searched with.

    Args:
        workspace: an open store with daily bars.
        controls: number of searches, bars, seed, gates and planted edges.
        rebuild: search again even if results are stored.

    Returns:
        Rows of `negative_controls` with the name of the gate set, one per kind of market, first
        without an edge and then by planted Sharpe ratio.

    Raises:
        LooksAhead: where all strategies look ahead, or the one that has the planted edge does.
        InvalidInput: where no daily bars are stored, or their prices never change.
        UnknownName: for a gate set that is not registered.
    """
    with workspace.database.begin() as connection:
        gates = gate_set(connection, controls.gates)
        symbols = symbols_with_bars(connection, DAILY, workspace.price_dataset)
    batch = load_batch(workspace, workspace.price_dataset, DAILY, symbols, PRICES)
    grids, left_out = honest_grids(workspace)
    if controls.planted and PLANTED_STRATEGY.name in left_out:
        raise LooksAhead(left_out[PLANTED_STRATEGY.name])
    code = negative_controls_code()
    versions = sorted((asset, version.version) for asset, version in batch.inputs.items())
    about = [controls.searches, controls.n_bars, controls.seed, gates.gate_set_id, code]
    control_id = hash_of([*about, versions, sorted(left_out), sorted(controls.planted)])
    stored = _stored(workspace, control_id)
    if stored and not rebuild:
        return stored
    searches = MarketSearches(
        BatchFiles.of(batch),
        tuple(grid.strategy.name for grid in grids),
        tuple(gates_of(gates.gates)),
        controls.searches,
        controls.n_bars,
        controls.seed,
    )
    universe = bar_moves(batch.panel)
    rows = [
        {
            "control_id": control_id,
            "world": market.kind.value,
            "planted": market.planted,
            "seed": controls.seed,
            "n_bars": controls.n_bars,
            "n_assets": len(universe),
            "n_trials": sum(map(len, searches.grids(market))),
            **_counts(searches.verdicts(workspace, market, universe)),
            "gate_set_id": gates.gate_set_id,
            "code_version": code,
            "created_at": datetime.now(UTC),
        }
        for planted in (0.0, *sorted(controls.planted))
        for kind in RandomMarket
        for market in [Market(kind, planted)]
    ]
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        publish_controls(cursor, pa.Table.from_pylist(rows))
    return _stored(workspace, control_id)


def honest_grids(workspace: Workspace) -> tuple[list[ParameterGrid], dict[str, str]]:
    """The grids of a search, and the strategies left out of it, and why.

    These look ahead, or read columns of the user's own, which random markets do not have.
    """
    needy = {
        strategy.name: f"{strategy.name} reads {', '.join(read)}, which random markets do not have"
        for strategy in strategies().values()
        if (
            read := own_columns_read(
                strategy, strategy.parse({}).model_dump() | dict(strategy.grid)
            )
        )
    }
    grids = search_grids(s for s in strategies().values() if s.name not in needy)
    ends = {}
    for grid in grids:
        values = zip(*grid.combinations, strict=True)
        ends[grid.strategy.name] = ends_of(
            grid.strategy, dict(zip(grid.names, values, strict=True))
        )
    left_out = {name: str(why) for name, why in refused_strategies(workspace, ends).items()}
    left_out |= needy
    honest = [grid for grid in grids if grid.strategy.name not in left_out]
    if not honest:
        raise LooksAhead("; ".join(left_out.values()))
    return honest, left_out


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


def believes_too_much(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any false-positive rate is above MOST_FALSE, in any kind of market."""
    return any(row[name] > MOST_FALSE for row in rows if not row["planted"] for name in _JUDGED)


def controls_summary(rows: Sequence[Mapping[str, Any]]) -> Summary:
    """False-positive rates by kind of market, with and without the corrections, and the power."""
    tables = {"false_positives": shown_controls(rows)}
    if power := shown_power(rows):
        tables["power"] = power
    searches = sum(row["n_searches"] for row in rows)
    return Summary({"searches": searches, "highest_rate_allowed": MOST_FALSE}, tables)


def shown_controls(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows without a planted edge as a table for display, rates as fractions."""
    return [
        {
            "world": row["world"],
            "searches": row["n_searches"],
            "trials_each": row["n_trials"],
            "best_by_psr": rounded(row["n_naive"] / row["n_searches"]),
            "dsr_in_family": rounded(row["n_in_family"] / row["n_searches"]),
            "best_run": rounded(row["run_rate"]),
            "walk_forward": rounded(row["walk_forward_rate"]),
            "declared": rounded(_share(row["n_declared_passed"], row["n_walk_forwards"])[0]),
            "rate": rounded(row["rate"]),
            "upper_bound": rounded(row["upper_bound"]),
            "passed_gates": rounded(row["n_passed"] / row["n_searches"]),
        }
        for row in rows
        if not row["planted"]
    ]


def shown_power(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a planted edge as a table for display.

    Shares of searches and walk-forwards that find it as fractions, each followed by its standard
    error.
    """
    shown = []
    for row in rows:
        if not row["planted"]:
            continue
        counts = {
            "walk_forward": (row["n_walk_forwards_passed"], row["n_walk_forwards"]),
            "declared": (row["n_declared_passed"], row["n_walk_forwards"]),
            "significant": (row["n_significant"], row["n_searches"]),
            "passed_gates": (row["n_passed"], row["n_searches"]),
        }
        own: dict[str, Any] = {
            "world": row["world"],
            "true_sharpe": row["planted"],
            "searches": row["n_searches"],
        }
        for name, (k, n) in counts.items():
            share, error = _share(k, n)
            own |= {name: rounded(share), f"{name}_se": rounded(error)}
        shown.append(own)
    return shown


def _share(k: int, n: int) -> tuple[float, float]:
    """The share `k / n` and its binomial standard error; 0 for both without any."""
    share = k / max(n, 1)
    return share, math.sqrt(share * (1 - share) / max(n, 1))
