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
from backtest_pipeline.pipeline.identity import canonical_json
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.trials import MOST_CLUSTERED, Family, family_of
from backtest_pipeline.simulation.metrics import FAMILY_METRICS
from backtest_pipeline.simulation.significance import deflated_sharpe_ratio
from backtest_pipeline.storage import copy
from backtest_pipeline.storage.dimensions import asset_ids
from backtest_pipeline.storage.trials import read_families, read_runs_to_deflate, write_deflated

if TYPE_CHECKING:
    from backtest_pipeline.storage.copy import Cursor

FamilyKey = tuple[str, str]
"""Symbol and signal type."""

_REASONS = {metric.name: metric.undefined for metric in FAMILY_METRICS}


def deflate(
    cursor: Cursor,
    tf: str,
    symbols: Sequence[str],
    found: Mapping[FamilyKey, Family],
    weighed: Sequence[str] = (),
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


def with_deflated(
    metrics: pa.Table, runs: pa.Table, trials: pa.Table, found: Mapping[FamilyKey, Family]
) -> pa.Table:
    """The metrics of runs that are about to be published, with what their families make of them.

    Args:
        metrics, runs, trials: rows of the tables of these names, run by run.
        found: the families, the trials among them.
    """
    measured = {name: trials[name] for name in ("sharpe", "n_obs", "skew", "kurtosis")}
    owners = {name: runs[name] for name in ("run_id", "symbol", "signal_type")}
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
            found = families(read_families(cursor, tf, symbols, (), MOST_CLUSTERED))
            deflate(cursor, tf, symbols, found)
        for (symbol, signal_type), family in found.items():
            answer.setdefault(Partition(symbol, tf), {})[signal_type] = family
    return answer


def families(trials: pa.Table) -> dict[FamilyKey, Family]:
    """The families of trials, as `storage.trials.read_families` gives them."""
    owners = list(zip(*(trials[n].to_pylist() for n in ("symbol", "signal_type")), strict=True))
    sharpe, n_obs, first_day = (
        copy.numbers(trials[name]) for name in ("sharpe", "n_obs", "first_day")
    )
    weekly = trials["weekly_returns"].combine_chunks()
    bounds, values = weekly.offsets.to_numpy(), weekly.values.to_numpy()
    found, start = {}, 0
    for owner, group in groupby(owners):
        stop = start + len(list(group))
        rows = slice(start, stop)
        series = [values[low:high] for low, high in pairwise(bounds[start : stop + 1])]
        found[owner] = family_of(sharpe[rows], n_obs[rows], _aligned(first_day[rows], series))
        start = stop
    return found


def deflated(runs: pa.Table, found: Mapping[FamilyKey, Family]) -> pa.Table:
    """What the families make of runs, for `storage.trials.write_deflated`.

    Args:
        runs: run_id, symbol, signal_type, sharpe, n_obs, skew, kurtosis.
        found: the family of each.
    """
    owners = zip(*(runs[name].to_pylist() for name in ("symbol", "signal_type")), strict=True)
    family = [found[owner] for owner in owners]
    sharpe, n_obs, skew, kurtosis = (
        copy.numbers(runs[name]) for name in ("sharpe", "n_obs", "skew", "kurtosis")
    )
    n_trials = np.array([of.n_trials for of in family], float)
    n_effective = np.array([of.n_effective for of in family])
    variance = np.array([of.spread for of in family]) / np.maximum(n_obs, 1)
    dsr, dsr_effective = (
        deflated_sharpe_ratio(sharpe, n_obs, skew, kurtosis, variance, n)
        for n in (n_trials, n_effective)
    )
    undefined = {name: _REASONS[name] for name in ("dsr", "dsr_effective")}
    reasons = [canonical_json(undefined if np.isnan(value) else {}) for value in dsr]
    return pa.table(
        {
            "run_id": runs["run_id"],
            "dsr": copy.floats(dsr),
            "dsr_effective": copy.floats(dsr_effective),
            "n_trials": n_trials,
            "n_trials_effective": n_effective,
            "undefined": reasons,
        }
    )


def _aligned(first_day: np.ndarray, series: Sequence[np.ndarray]) -> np.ndarray:
    """Weekly returns side by side, float64 `(n_weeks, n_sampled)`; 0 where a trial has none.

    Args:
        first_day: day number of each trial's first week; NaN where it has no returns here.
        series: the weekly returns of each trial.
    """
    first_week = ((first_day - np.nanmin(first_day)) // 7).tolist()
    sampled = [
        (int(first), returns)
        for first, returns in zip(first_week, series, strict=True)
        if not np.isnan(first)
    ]
    aligned = np.zeros((max(first + len(returns) for first, returns in sampled), len(sampled)))
    for column, (first, returns) in enumerate(sampled):
        aligned[first : first + len(returns), column] = returns
    return aligned
