"""Recomputation of stored metrics from the trades and equity that are stored with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import groupby
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.market.errors import ArtifactError, WorkGivenUp
from backtest_pipeline.pipeline.pools.work_pool import HERE, PoolWork, done
from backtest_pipeline.pipeline.versions import PLANNED, PORTFOLIO_CODE
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.metrics.metrics import (
    METRIC_NAMES,
    METRICS_VERSION,
    TRADE_COLUMNS,
    equity_metrics,
    metrics_of_series,
)
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.portfolios import portfolio_figures
from backtest_pipeline.storage.run_tables.recorded_runs import (
    figures_by_directory,
    runs_by_directory,
    trades_of,
)
from backtest_pipeline.strategies.cross_section.definition import KIND

TOLERANCE = 1e-9
"""Relative: another processor's logarithms differ in the last digits."""
RUNS_A_PIECE = 1_000
"""Runs that are recomputed in one piece: some seconds of work, and some hundred MB."""
_STAMPS = ("entry_ts", "exit_ts")


@dataclass
class StoredMetrics:
    """What the recomputation of stored metrics found.

    Attributes:
        runs: number of runs whose metrics were recomputed.
        portfolios: number of portfolios whose metrics were recomputed.
        older: number of runs and portfolios left out, with metrics of an older version.
        differing: the first figure of a run or portfolio that its trades and equity do not give, by
            id.
        unreadable: why the files of a directory could not be read, by its uri.
    """

    runs: int = 0
    portfolios: int = 0
    older: int = 0
    differing: dict[UUID, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: StoredMetrics) -> StoredMetrics:
        return StoredMetrics(
            self.runs + other.runs,
            self.portfolios + other.portfolios,
            self.older + other.older,
            self.differing | other.differing,
            self.unreadable | other.unreadable,
        )


@retried
def check_stored_metrics(workspace: Workspace) -> StoredMetrics:
    """Recompute the metrics of all stored runs and portfolios, and compare them with the rows.

    So are the summaries of runs. Metrics of portfolios that follow from their members, and deflated
    ones, are left out. One directory of artifacts is read at a time, by each worker of the pool.
    """
    with workspace.database.begin() as connection:
        directories = runs_by_directory(connection)
        portfolios = portfolio_figures(connection)
    pieces = _pieces(directories)
    pool = HERE if len(pieces) <= 1 else workspace.pool
    work = PoolWork("stored_metrics", partial(metrics_again, workspace), metrics_again)
    parts = dict(done(pool, work, pieces))
    found = reduce(StoredMetrics.__add__, (parts[piece] for piece in pieces), StoredMetrics())
    found.older += sum(row["code_version"] != PORTFOLIO_CODE for row in portfolios)
    for uri, group in groupby(portfolios, key=lambda row: row["artifact_uri"]):
        formed = [row for row in group if row["code_version"] == PORTFOLIO_CODE]
        found.portfolios += len(formed)
        try:
            for row in formed:
                if wrong := _first_wrong_of_portfolio(workspace, uri, row):
                    found.differing[row["run_id"]] = wrong
        except ArtifactError as error:
            found.unreadable[uri] = str(error)
    return found


def _pieces(directories: Mapping[str, int]) -> list[tuple[str, ...]]:
    """The directories in pieces of at least RUNS_A_PIECE runs, but for the last."""
    pieces: list[tuple[str, ...]] = []
    own: list[str] = []
    n_runs = 0
    for uri, n in directories.items():
        own.append(uri)
        n_runs += n
        if n_runs >= RUNS_A_PIECE:
            pieces.append(tuple(own))
            own, n_runs = [], 0
    return [*pieces, tuple(own)] if own else pieces


def metrics_again(workspace: Workspace, uris: Sequence[str]) -> StoredMetrics:
    """The metrics of the runs in some directories, recomputed in any process."""
    found = StoredMetrics()
    with workspace.database.begin() as connection:
        rows = figures_by_directory(connection, uris)
    for uri, group in groupby(rows, key=lambda row: row["artifact_uri"]):
        if workspace.given_up.is_set():
            raise WorkGivenUp("stored_metrics: it was ended before all were looked at")
        runs = [row for row in group if row["metrics_version"] == METRICS_VERSION]
        found.runs += len(runs)
        try:
            for row, expected in _recomputed(workspace, uri, runs):
                if wrong := _first_wrong(row, expected):
                    found.differing[row["run_id"]] = wrong
        except ArtifactError as error:
            found.unreadable[uri] = str(error)
    found.older = len(rows) - found.runs
    return found


def _recomputed(
    workspace: Workspace, uri: str, rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], dict[str, float]]]:
    """Each run of a directory with its recomputed metrics."""
    by_rate = sorted(rows, key=lambda row: row["risk_free"])
    for risk_free, group in groupby(by_rate, key=lambda row: row["risk_free"]):
        runs = list(group)
        ids = [str(row["run_id"]) for row in runs]
        equity = workspace.artifacts.read_table(
            uri, "equity.parquet", ["run_id", "ts", "equity"], [("run_id", "in", ids)]
        )
        held = workspace.artifacts.read_table(uri, "benchmark.parquet", ["asset", "benchmark"])
        owner = _positions(equity["run_id"], ids)
        order = np.argsort(owner, kind="stable")
        offsets = np.searchsorted(owner[order], np.arange(len(ids) + 1))
        by_asset = _by_name(held)
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            trades = trades_of(cursor, ids, TRADE_COLUMNS)
        metrics = metrics_of_series(
            equity["ts"].cast(pa.int64()).to_numpy()[order],
            offsets,
            equity["equity"].to_numpy()[None, order],
            np.concatenate([by_asset[row["symbol"]] for row in runs]),
            {
                name: (copy.stamps_of if name in _STAMPS else copy.numbers)(trades[name])
                for name in TRADE_COLUMNS
            },
            _positions(trades["run_id"], ids),
            np.array([row["n_bars"] for row in runs]),
            risk_free=risk_free,
        )
        stamps = equity["ts"].cast(pa.int64()).to_numpy()[order]
        of_trades = _positions(trades["run_id"], ids)
        for i, row in enumerate(runs):
            found = {name: float(values[i]) for name, values in metrics.items()}
            if row["split"] in (PLANNED, KIND):
                own = trades.filter(pa.array(of_trades == i))
                found["exposure"] = _share_held(stamps[offsets[i] : offsets[i + 1]], own)
            yield row, found


def _share_held(ts: np.ndarray, trades: pa.Table) -> float:
    """Share of the stamps at which a book holds anything: positions of several symbols overlap."""
    is_open = copy.numbers(trades["is_open"])
    entries = np.sort(copy.stamps_of(trades["entry_ts"]))
    exits = np.sort(copy.stamps_of(trades["exit_ts"])[~is_open])
    held = np.searchsorted(entries, ts) - np.searchsorted(exits, ts, side="right")
    return float(np.mean(held > 0))


def _first_wrong_of_portfolio(workspace: Workspace, uri: str, row: Mapping[str, Any]) -> str | None:
    """The first figure of a portfolio that its equity and rebalances do not give, in words."""
    own = [("run_id", "=", str(row["run_id"]))]
    names = ["ts", "equity", "benchmark"]
    equity = workspace.artifacts.read_table(uri, "equity.parquet", names, own)
    rebalances = workspace.artifacts.read_table(uri, "rebalances.parquet", ["turnover"], own)
    metrics = equity_metrics(
        equity["ts"].cast(pa.int64()).to_numpy(),
        np.array([0, equity.num_rows]),
        equity["equity"].to_numpy()[None, :],
        equity["benchmark"].to_numpy(),
        risk_free=row["config"]["risk_free"],
    )
    expected = {name: float(metrics[name][0]) for name in METRIC_NAMES if name in metrics}
    moved = rebalances["turnover"].to_numpy()[1:]
    expected["mean_turnover"] = float(moved.mean()) if len(moved) else np.nan
    stored = {name: row["metrics"][name] for name in expected}
    return _first_difference("portfolio_runs.metrics", stored, expected)


def _positions(names: pa.ChunkedArray, known: Sequence[str]) -> np.ndarray:
    """Position of each name among the known ones, int64."""
    found: Any = pc.index_in(names.cast(pa.string()), pa.array(known, pa.string()))  # pyright: ignore[reportAttributeAccessIssue]
    return found.to_numpy().astype(np.int64)


def _by_name(held: pa.Table) -> dict[str, np.ndarray]:
    """The benchmark of each asset."""
    names = held["asset"].cast(pa.string()).unique().to_pylist()
    position, values = _positions(held["asset"], names), held["benchmark"].to_numpy()
    return {name: values[position == i] for i, name in enumerate(names)}


def _first_wrong(row: Mapping[str, Any], expected: Mapping[str, float]) -> str | None:
    """The first figure of a run that differs from the recomputed one, in words."""
    results = {**row["results"]["summary"], "trade_count": row["results"]["trades"]}
    stored = {name: row[name] for name in METRIC_NAMES}
    for where, figures in {"backtest_metrics": stored, "backtest_runs.results": results}.items():
        if wrong := _first_difference(where, figures, expected):
            return wrong
    return None


def _first_difference(
    where: str, figures: Mapping[str, Any], expected: Mapping[str, float]
) -> str | None:
    for name, value in figures.items():
        right = expected[name]
        given = np.nan if value is None else value
        if not np.isclose(given, right, rtol=TOLERANCE, atol=1e-11, equal_nan=True):
            return f"{where}: {name} is {value}, but its trades and equity give {right}"
    return None
