"""Members of portfolios: the equity curves of stored runs on common timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from backtest_pipeline.pipeline.runs.summary import Run
from backtest_pipeline.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Members:
    """The members of a portfolio: runs, or portfolios of runs.

    Attributes:
        names: symbols, or names of strategies.
        ids: of `dim_assets`, or of `dim_signals`.
        run_ids: text.
        sharpes: float64 `(n_members,)`, NaN where undefined.
        ts: int64 `(n_times,)`, microseconds UTC, the union of all members' timestamps.
        curves: float64 `(n_members, n_times)`, equity, NaN where a member has no bar.
        benchmarks: float64 `(n_members, n_times)`, equity of each member's benchmark.
    """

    names: Sequence[str]
    ids: Sequence[int]
    run_ids: Sequence[str]
    sharpes: np.ndarray
    ts: np.ndarray
    curves: np.ndarray
    benchmarks: np.ndarray


def members_of(workspace: Workspace, runs: Sequence[Run]) -> Members:
    """The runs with their stored equity and benchmark."""
    run_ids = [str(run["run_id"]) for run in runs]
    own = _series(workspace, runs, "equity", "run_id", run_ids)
    held = _series(workspace, runs, "benchmark", "asset", [run["symbol"] for run in runs])
    ts = np.union1d(own.ts, held.ts)
    return Members(
        names=[run["symbol"] for run in runs],
        ids=[run["id"] for run in runs],
        run_ids=run_ids,
        sharpes=np.array([run["sharpe"] for run in runs], np.float64),
        ts=ts,
        curves=_placed(own, ts, len(runs)),
        benchmarks=_placed(held, ts, len(runs)),
    )


class _Series(NamedTuple):
    """A value at each timestamp of each member; `member` is the member's position."""

    member: np.ndarray
    ts: np.ndarray
    value: np.ndarray


def _series(
    workspace: Workspace, runs: Sequence[Run], what: str, key: str, keys: Sequence[str]
) -> _Series:
    """The column `what` of the file `<what>.parquet`, for rows whose `key` is one of `keys`."""
    by_uri: dict[str, list[str]] = {}
    for run, name in zip(runs, keys, strict=True):
        by_uri.setdefault(run["artifact_uri"], []).append(name)
    # An older file may still hold assets whose current runs are in a newer one.
    tables = [
        workspace.artifacts.read_table(
            uri, f"{what}.parquet", [key, "ts", what], [(key, "in", names_in_file)]
        )
        for uri, names_in_file in sorted(by_uri.items())
    ]
    table = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    names = table[key].combine_chunks()
    member_of = {name: i for i, name in enumerate(keys)}
    of_code = np.array([member_of.get(name, -1) for name in names.dictionary.to_pylist()])
    return _Series(
        of_code[names.indices.to_numpy()],
        table["ts"].cast(pa.int64()).to_numpy(),
        table[what].to_numpy(),
    )


def _placed(series: _Series, ts: np.ndarray, n_members: int) -> np.ndarray:
    values = np.full((n_members, len(ts)), np.nan)
    values[series.member, np.searchsorted(ts, series.ts)] = series.value
    return values
