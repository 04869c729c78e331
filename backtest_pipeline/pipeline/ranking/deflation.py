"""What the Sharpe ratios of runs are worth after all that was tried: the ledger's say.

A family is all that was tried of one strategy on one asset and timeframe, whatever the window, the
costs or the direction. It is what a reader of a run would have chosen from: another parameter, a
kinder window, cheaper costs. Runs on other assets answer other questions; who picks the best asset
of many has chosen among families as well, and no number of a single run can tell how many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.runs.identity import canonical_json
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.ranking.trials import MOST_CLUSTERED, Family, deflate, family_of
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS
from backtest_pipeline.simulation.metrics.significance import SharpeMoments
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.trials import (
    read_families,
    read_runs_to_deflate,
    read_strategies,
    write_deflated,
)
from backtest_pipeline.storage.tables.dimensions import asset_ids

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.copy import Cursor

Families = Mapping[tuple[str, ...], Family]
"""By symbol and signal type, or by what else owns them."""

_REASONS = {metric.name: metric.undefined for metric in FAMILY_METRICS}


def deflate_runs(
    cursor: Cursor, tf: str, symbols: Sequence[str], published: Sequence[str] = ()
) -> Families:
    """Weigh the current runs on these assets against the ledger, and store what comes of it.

    Args:
        cursor: its transaction sees runs and trials, and makes the numbers appear.
        tf, symbols: the partitions.
        published: trials that this transaction publishes; of their configurations they count.

    Returns:
        The families by symbol and signal type.
    """
    found = families(read_families(cursor, tf, symbols, published, MOST_CLUSTERED))
    weigh(cursor, tf, symbols, found)
    return found


def weigh(
    cursor: Cursor, tf: str, symbols: Sequence[str], found: Families, weighed: Sequence[str] = ()
) -> None:
    """Weigh the current runs on these assets against their families, and store what comes of it.

    A run's id and its fingerprint stay as they are: what others try is no part of a run.

    Args:
        cursor: its transaction sees the runs, and makes the numbers appear.
        tf, symbols: the partitions.
        found: their families.
        weighed: ids of runs whose numbers are stored already.
    """
    runs = read_runs_to_deflate(cursor, tf, symbols, weighed)
    if runs.num_rows:
        write_deflated(cursor, deflated(runs, found))


def with_deflated(metrics: pa.Table, runs: pa.Table, trials: pa.Table, found: Families) -> pa.Table:
    """The metrics of runs that are about to be published, with what their families make of them.

    Args:
        metrics, runs, trials: rows of the tables of these names, run by run.
        found: the families, the trials among them.
    """
    measured = {name: trials[name] for name in ("sharpe", "n_obs", "skew", "kurtosis")}
    owners = {name: runs[name] for name in ("run_id", "symbol", "strategy")}
    numbers = deflated(pa.table({**owners, **measured}), found)
    reasons = [
        of_run if of_family == "{}" else canonical_json(json.loads(of_run) | json.loads(of_family))
        for of_run, of_family in zip(
            metrics["undefined"].to_pylist(), numbers["undefined"].to_pylist(), strict=True
        )
    ]
    columns = {name: metrics[name] for name in metrics.column_names}
    added = {name: numbers[name] for name in numbers.column_names if name != "run_id"}
    return pa.table({**columns, **added, "undefined": reasons})


@retried
def deflate_partitions(
    workspace: Workspace, partitions: Sequence[Partition]
) -> dict[Partition, dict[str, Family]]:
    """Weigh the current runs of these partitions against the ledger as it is now.

    Returns:
        The families by partition and signal type.
    """
    by_timeframe: dict[str, list[str]] = {}
    for asset, tf in partitions:
        by_timeframe.setdefault(tf, []).append(asset)
    answer: dict[Partition, dict[str, Family]] = {}
    for tf, symbols in by_timeframe.items():
        with workspace.database.begin() as connection:
            ids = asset_ids(connection, symbols)
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, "backtests", tf, list(ids.values()))
            found = deflate_runs(cursor, tf, symbols)
        for (symbol, strategy), family in found.items():
            answer.setdefault(Partition(symbol, tf), {})[strategy] = family
    return answer


@retried
def strategies_tried(workspace: Workspace) -> dict[str, Family]:
    """All that the ledger holds of each strategy, over all assets and timeframes."""
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        trials = read_strategies(cursor, MOST_CLUSTERED)
    return {name: family for (name,), family in families(trials, ["strategy"]).items()}


def families(trials: pa.Table, owner: Sequence[str] = ("symbol", "strategy")) -> Families:
    """The families of trials, as `run_tables.trials` gives them, by the columns of `owner`."""
    owners = list(zip(*(trials[name].to_pylist() for name in owner), strict=True))
    n_trials = trials["n_trials"].to_pylist()
    first_day = trials["first_day"].to_numpy()
    weekly = trials["weekly_returns"].combine_chunks()
    bounds, values = weekly.offsets.to_numpy(), weekly.values.to_numpy()
    found, start = {}, 0
    for owner, group in groupby(owners):
        stop = start + len(list(group))
        series = [values[low:high] for low, high in pairwise(bounds[start : stop + 1])]
        found[owner] = family_of(n_trials[start], _aligned(first_day[start:stop], series))
        start = stop
    return found


def deflated(runs: pa.Table, found: Families) -> pa.Table:
    """What the families make of runs, for `storage.run_tables.trials.write_deflated`.

    Args:
        runs: run_id, symbol, strategy, sharpe, n_obs, skew, kurtosis.
        found: the family of each, by symbol and signal type.
    """
    owners = zip(*(runs[name].to_pylist() for name in ("symbol", "strategy")), strict=True)
    family = [found[owner] for owner in owners]
    sharpe, skew, kurtosis, n_obs = (
        copy.numbers(runs[name]) for name in ("sharpe", "skew", "kurtosis", "n_obs")
    )
    worth = deflate(SharpeMoments(sharpe, skew, kurtosis, n_obs), family)
    undefined = {name: _REASONS[name] for name in ("dsr", "dsr_effective")}
    reasons = [canonical_json(undefined if np.isnan(value) else {}) for value in worth.dsr]
    return pa.table(
        {
            "run_id": runs["run_id"],
            "dsr": copy.floats(worth.dsr),
            "dsr_effective": copy.floats(worth.dsr_effective),
            "n_trials": np.array([of.n_trials for of in family], float),
            "n_trials_effective": np.array([of.n_effective for of in family]),
            "undefined": reasons,
        }
    )


def _aligned(first_day: np.ndarray, series: Sequence[np.ndarray]) -> np.ndarray:
    """Weekly returns side by side, float64 `(n_weeks, n_trials)`; 0 where a trial has none.

    Args:
        first_day: int `(n_trials,)`, day number of each trial's first week.
        series: the weekly returns of each trial.
    """
    first_week = ((first_day - first_day.min()) // 7).tolist()
    n_weeks = max(first + len(own) for first, own in zip(first_week, series, strict=True))
    aligned = np.zeros((n_weeks, len(series)))
    for column, (first, own) in enumerate(zip(first_week, series, strict=True)):
        aligned[first : first + len(own), column] = own
    return aligned
