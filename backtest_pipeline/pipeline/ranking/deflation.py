"""Deflates the Sharpe ratios of runs by all trials in the ledger.

A family is all sets of parameters and settings of one strategy that were tried on one asset and
timeframe: the runs that a reader might have picked instead. A run on a window of the user's own
might also have been on any other window that was shown. Runs on other assets are separate families;
whoever picks the best of many assets also chooses among families, and no figure of a single run can
tell how many. A strategy that ranks a universe has one family at a timeframe, whatever its assets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
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
    read_windows,
    write_deflated,
)
from backtest_pipeline.storage.tables.dimensions import asset_ids

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.copy import Cursor

Families = Mapping[tuple[str, ...], Family]
"""Families by symbol and strategy, or by other owner columns."""

_REASONS = {metric.name: metric.undefined for metric in FAMILY_METRICS}


def deflate_runs(
    cursor: Cursor, tf: str, symbols: Sequence[str], published: Sequence[str] = ()
) -> Families:
    """Deflate the current runs on these assets by the ledger, and store their metrics.

    Args:
        cursor: cursor of the transaction that reads runs and trials, and writes the metrics.
        tf, symbols: the partitions.
        published: trials that this transaction publishes; they stand for their configurations.

    Returns:
        The families by symbol and strategy.
    """
    of_runs = families_on(cursor, tf, symbols, published)
    deflate_current_runs(cursor, tf, symbols, of_runs)
    return of_runs


def families_on(
    cursor: Cursor, tf: str, symbols: Sequence[str], published: Sequence[str] = ()
) -> Families:
    """The families of these partitions by symbol and strategy; arguments as `deflate_runs`."""
    found = families(read_families(cursor, tf, symbols, published, MOST_CLUSTERED))
    windows: dict[tuple[str, ...], int] = {
        (row["symbol"], row["family"]): row["n_windows"]
        for row in read_windows(cursor, tf, symbols, published).to_pylist()
    }
    return {
        owner: replace(family, n_windows=windows.get(owner, 1)) for owner, family in found.items()
    }


def deflate_current_runs(
    cursor: Cursor,
    tf: str,
    symbols: Sequence[str],
    of_runs: Families,
    up_to_date: Sequence[str] = (),
) -> None:
    """Deflate the current runs on these assets by their families, and store their metrics.

    Run ids and fingerprints do not change: other trials are not part of a run.

    Args:
        cursor: cursor of the transaction that reads the runs, and writes the metrics.
        tf, symbols: the partitions.
        of_runs: their families.
        up_to_date: ids of runs whose metrics are stored already.
    """
    runs = read_runs_to_deflate(cursor, tf, symbols, up_to_date)
    if runs.num_rows:
        write_deflated(cursor, deflated(runs, of_runs))


def with_deflated(
    metrics: pa.Table, runs: pa.Table, trials: pa.Table, of_runs: Families
) -> pa.Table:
    """The metrics of runs about to be published, with those deflated by their families.

    Args:
        metrics, runs, trials: rows of the tables of these names, run by run.
        of_runs: the families, which include these trials.
    """
    measured = {name: trials[name] for name in ("sharpe", "n_obs", "skew", "kurtosis")}
    owners = {"run_id": runs["run_id"], "symbol": trials["symbol"], "family": runs["strategy"]}
    ends = zip(trials["window_start"].to_pylist(), trials["window_end"].to_pylist(), strict=True)
    owners["in_window"] = pa.array([window != (None, None) for window in ends])
    numbers = deflated(pa.table({**owners, **measured}), of_runs)
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
    """Deflate the current runs of these partitions by the current ledger.

    Returns:
        The families by partition and name: that of a strategy, or walk-forward.
    """
    by_timeframe: dict[str, list[str]] = {}
    for asset, tf in partitions:
        by_timeframe.setdefault(tf, []).append(asset)
    by_partition: dict[Partition, dict[str, Family]] = {}
    for tf, symbols in by_timeframe.items():
        with workspace.database.begin() as connection:
            ids = asset_ids(connection, symbols)
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, "backtests", tf, list(ids.values()))
            of_runs = deflate_runs(cursor, tf, symbols)
        for (symbol, name), family in of_runs.items():
            by_partition.setdefault(Partition(symbol, tf), {})[name] = family
    return by_partition


@retried
def strategies_tried(workspace: Workspace) -> dict[str, Family]:
    """All trials of each strategy in the ledger, over all assets and timeframes, as a family."""
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        trials = read_strategies(cursor, MOST_CLUSTERED)
    return {name: family for (name,), family in families(trials, ["strategy"]).items()}


def families(trials: pa.Table, owner: Sequence[str] = ("symbol", "family")) -> Families:
    """Group trials, as `run_tables.trials` returns them, into families by the `owner` columns."""
    owners = list(zip(*(trials[name].to_pylist() for name in owner), strict=True))
    n_trials = trials["n_trials"].to_pylist()
    first_day = trials["first_day"].to_numpy()
    weekly = trials["weekly_returns"].combine_chunks()
    bounds, values = weekly.offsets.to_numpy(), weekly.values.to_numpy()
    by_owner, start = {}, 0
    for owner, group in groupby(owners):
        stop = start + len(list(group))
        series = [values[low:high] for low, high in pairwise(bounds[start : stop + 1])]
        by_owner[owner] = family_of(n_trials[start], _aligned(first_day[start:stop], series))
        start = stop
    return by_owner


def deflated(runs: pa.Table, of_runs: Families) -> pa.Table:
    """The deflated metrics of runs, for `storage.run_tables.trials.write_deflated`.

    Args:
        runs: run_id, symbol, family, in_window, sharpe, n_obs, skew, kurtosis.
        of_runs: the family of each run, by symbol and strategy.
    """
    names = ("symbol", "family", "in_window")
    family = [
        of_runs[symbol, name].over_windows() if in_window else of_runs[symbol, name]
        for symbol, name, in_window in zip(*(runs[n].to_pylist() for n in names), strict=True)
    ]
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
            "deflated_at": pa.array([datetime.now(UTC)] * len(family), pa.timestamp("us", "UTC")),
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
