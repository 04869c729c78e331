"""Stored runs: list, read and pin them.

Every function raises RunNotFound for a run that is not stored or is being deleted; those that read
series also raise ResultPathMissing where its artifacts are missing and ArtifactCorrupt where they
are damaged. Times are UTC, ratios are fractions (not percent), undefined values are None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import ResultPathMissing
from backtest_pipeline.pipeline.runs.reports.bands import stored_intervals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.rolling_figures import rolling_statistics
from backtest_pipeline.report.thinning import thinned_rows
from backtest_pipeline.research.ranking.trials import CountingRule
from backtest_pipeline.research.robustness.bootstrap import daily_equity
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRIC_NAMES
from backtest_pipeline.storage.artifacts.backend import MANIFEST
from backtest_pipeline.storage.postgres.pages import Page
from backtest_pipeline.storage.run_tables import run_search
from backtest_pipeline.storage.run_tables.recorded_runs import find_run_id
from backtest_pipeline.storage.run_tables.run_search import RunFilter
from backtest_pipeline.storage.run_tables.runs import with_provenance

SERIES = ("equity", "drawdown", "exposure", "benchmark")
SIGNIFICANCE = ("psr", "min_track_record_length", *(metric.name for metric in FAMILY_METRICS))
PROVENANCE = (
    *("snapshot_id", "dataset_version_ids", "code_version", "code_archive", "config_hash"),
    *("environment_hash", "engine", "engine_version", "seed", "result_fingerprint"),
)


@dataclass(frozen=True)
class RunDetail:
    """All stored details of a run except its series.

    Attributes:
        run_id: its id.
        signal_name, strategy, params: the strategy and its parameters.
        symbol, timeframe, split, window, direction: what was traded; the window as half-open
            dates, None where unbounded.
        synthetic: whether the bars are synthetic, not of a real market.
        first_ts, last_ts, n_bars: first and last bar (close timestamps), and their number.
        status, started_at, completed_at: status and times of the computation.
        is_current: whether no newer run of its configuration is stored.
        config: its full configuration as JSON values.
        results: summary, number of trades and pending order, as JSON values.
        metrics: metrics of docs/metrics.md, None where undefined.
        sampling: whether tails are of `daily` returns, or of those from bar to bar (`bars`); None
            where the run has no metrics.
        significance: significance metrics, given all trials, None where undefined.
        bands: its nominal 90 % intervals by metric; None where no command has computed them.
        counting_rule: what `n_trials` counts, by which `dsr` is deflated.
        undefined: why a metric is None, by name.
        provenance: its inputs, code and environment; `environment` in full.
        walk_forward: summary of its folds; None for a plain backtest.
        artifact_uri: location of its series.
        pin: who pinned it, when and why; None where nobody did.
        requests: who requested it on demand, and when first.
        quarantine: how a replay differed; None where the run is not in quarantine.
    """

    run_id: UUID
    signal_name: str
    strategy: str
    params: Mapping[str, Any]
    symbol: str
    synthetic: bool
    timeframe: str
    split: str
    window: tuple[date | None, date | None]
    direction: str
    first_ts: datetime
    last_ts: datetime
    n_bars: int
    status: str
    started_at: datetime
    completed_at: datetime | None
    is_current: bool
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    sampling: str | None
    significance: Mapping[str, float | None]
    bands: Mapping[str, tuple[float | None, float | None]] | None
    counting_rule: CountingRule
    undefined: Mapping[str, str]
    provenance: Mapping[str, Any]
    walk_forward: Mapping[str, Any] | None
    artifact_uri: str
    pin: Mapping[str, Any] | None
    requests: Sequence[Mapping[str, Any]]
    quarantine: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """The run's signal, asset and timeframe, for display."""
        return f"{self.signal_name} on {self.symbol}|{self.timeframe}"

    @property
    def within_training(self) -> bool:
        """Whether the language model of its plans may have read its bars in training."""
        return bool(self.results.get("within_training"))


def list_runs(
    workspace: Workspace,
    filters: RunFilter | None = None,
    *,
    limit: int = 50,
    after: str | None = None,
) -> Page[dict[str, Any]]:
    """List runs, newest first; see `storage.run_tables.run_search.list_runs` for the columns.

    Args:
        workspace: the open store.
        filters: the runs to list; all where None.
        limit: rows per page, at most 1000.
        after: `next` of the previous page.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    with workspace.database.begin() as connection:
        return run_search.list_runs(connection, filters or RunFilter(), limit, after)


def find_runs(workspace: Workspace, given: Sequence[str]) -> list[UUID]:
    """The full run ids for these beginnings of ids; raises RunNotFound unless each is unique."""
    with workspace.database.begin() as connection:
        return [find_run_id(connection, start) for start in given]


def get_run(workspace: Workspace, run_id: UUID) -> RunDetail:
    """A run with configuration, results, metrics, significance and provenance.

    Raises:
        RunNotFound: where it is not stored, or is being deleted.
        ProvenanceMissing: where its inputs are not recorded.
        ResultPathMissing: where its artifacts are missing.
    """
    run = run_summary(workspace, run_id)
    _require_artifacts(workspace, run.run_id, run.artifact_uri)
    return run


def run_summary(workspace: Workspace, run_id: UUID) -> RunDetail:
    """A run as `get_run` returns it, also where its artifacts are missing."""
    row = _row(workspace, run_id)
    with_provenance([row])
    return detail_of(row)


def detail_of(row: Mapping[str, Any]) -> RunDetail:
    """A row of `storage.run_tables.run_search.read_run` as a RunDetail."""
    stored = row["metrics"] or {}
    same = (
        *("run_id", "signal_name", "strategy", "params", "symbol", "synthetic", "split"),
        "direction",
        *("first_ts", "last_ts", "n_bars", "status", "started_at", "completed_at", "is_current"),
        *("config", "results", "walk_forward", "artifact_uri", "pin", "requests", "quarantine"),
    )
    return RunDetail(
        **{name: row[name] for name in same},
        timeframe=row["tf"],
        window=(row["window_start"], row["window_end"]),
        metrics=_numbers(stored, METRIC_NAMES),
        sampling=stored.get("sampling"),
        significance=_numbers(stored, SIGNIFICANCE),
        bands=stored_intervals(row["bands"]),
        counting_rule=CountingRule.of(row["split"], (row["window_start"], row["window_end"])),
        undefined=stored.get("undefined", {}),
        provenance={
            **{name: row[name] for name in PROVENANCE},
            "environment": row["environment"],
            "metrics_version": stored.get("metrics_version"),
            "deflated_at": stored.get("deflated_at"),
        },
    )


def _numbers(stored: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """Metrics by name, as floats: JSON does not distinguish 1 from 1.0."""
    return {name: None if (v := stored.get(name)) is None else float(v) for name in names}


def _require_artifacts(workspace: Workspace, run_id: UUID, uri: str) -> None:
    if workspace.artifacts.gone([f"{uri}/{MANIFEST}"]):
        raise ResultPathMissing(
            f"the series of run {run_id} are missing: there is no {uri} among the "
            "artifacts; run the backtest again to recreate them, or restore them from a backup"
        )


def _row(workspace: Workspace, run_id: UUID) -> dict[str, Any]:
    with workspace.database.begin() as connection:
        return run_search.read_run(connection, run_id)


def run_trades(
    workspace: Workspace, run_id: UUID, *, limit: int = 100, after: str | None = None
) -> Page[dict[str, Any]]:
    """The trades of a run by number, as rows of `backtest_trades`.

    Raises:
        InvalidInput: for a limit out of range, or a damaged cursor.
    """
    with workspace.database.begin() as connection:
        run_search.require_runs(connection, [run_id])
        return run_search.list_trades(connection, run_id, limit, after)


def run_equity(workspace: Workspace, run_id: UUID, *, points: int | None = None) -> pa.Table:
    """Equity and benchmark of a run by bar, columns ts, equity, benchmark; see `run_timeseries`."""
    return run_timeseries(workspace, run_id, ("equity", "benchmark"), points=points)


def run_timeseries(
    workspace: Workspace,
    run_id: UUID,
    names: Sequence[str] = SERIES,
    *,
    points: int | None = None,
) -> pa.Table:
    """Series of a run by bar: `ts` (close timestamps), then the named columns.

    Args:
        workspace: the open store.
        run_id: the run.
        names: any of `equity` and `benchmark` (quote currency), `drawdown` (fraction below the
            peak), `exposure` (position value over equity, negative when short).
        points: maximum number of bars; each series' highs and lows are kept.

    Raises:
        InvalidInput: for too few points to keep the extremes.
    """
    table = stored_series(workspace, _row(workspace, run_id)).select(["ts", *names])
    if points is None:
        return table
    return table.take(thinned_rows([table[name].to_numpy() for name in names], points))


def stored_series(workspace: Workspace, row: Mapping[str, Any]) -> pa.Table:
    """`ts` and all SERIES of the run with this row, as stored."""
    _require_artifacts(workspace, row["run_id"], row["artifact_uri"])
    read, uri = workspace.artifacts.read_table, row["artifact_uri"]
    own = [("run_id", "==", str(row["run_id"]))]
    table = read(uri, "equity.parquet", ["ts", "equity", "drawdown", "exposure"], own)
    held = read(uri, "benchmark.parquet", ["benchmark"], [("asset", "==", row["symbol"])])
    return table.append_column("benchmark", held["benchmark"]).combine_chunks()


def run_monthly(workspace: Workspace, run_id: UUID) -> pa.Table:
    """Columns `month` (its first day) and `return` (fraction) of a run."""
    return stored_monthly(workspace, _row(workspace, run_id))


def stored_monthly(workspace: Workspace, row: Mapping[str, Any]) -> pa.Table:
    """Monthly returns of the run with this row, as stored."""
    _require_artifacts(workspace, row["run_id"], row["artifact_uri"])
    return workspace.artifacts.read_table(
        row["artifact_uri"],
        "monthly_returns.parquet",
        ["month", "return"],
        [("run_id", "==", str(row["run_id"]))],
    ).combine_chunks()


def run_rolling(workspace: Workspace, run_id: UUID, window: int = 90) -> pa.Table:
    """Rolling return, volatility and Sharpe ratio of a run, over `window` days up to each day.

    Returns:
        Columns `day` (UTC date on which the window ends), `total_return` (fraction),
        `annual_volatility` (annualized, fraction) and `sharpe` (annualized), by the formulas of
        docs/metrics.md; NULL where undefined, empty where the run has fewer days.

    Raises:
        InvalidInput: for a window of fewer than two days.
    """
    table = stored_series(workspace, _row(workspace, run_id))
    daily = daily_equity(table["ts"].cast(pa.int64()).to_numpy(), table["equity"].to_numpy())
    figures = rolling_statistics(daily.equity, window)
    days = daily.day[window:].astype("M8[D]")
    return pa.table(
        {
            "day": pa.array(days),
            **{name: pa.array(v, mask=~np.isfinite(v)) for name, v in figures.items()},
        }
    )


def pin(
    workspace: Workspace,
    run_ids: Sequence[UUID],
    user: str,
    note: str = "",
    removes_of: str | None = None,
) -> None:
    """Pin runs against retention; arguments and errors as `run_search.pin_runs`."""
    with workspace.database.begin() as connection:
        run_search.pin_runs(connection, run_ids, user, note, removes_of)


def unpin(workspace: Workspace, run_ids: Sequence[UUID], removes_of: str | None = None) -> None:
    """Unpin runs, so that retention may delete them; errors as `run_search.unpin_runs`."""
    with workspace.database.begin() as connection:
        run_search.unpin_runs(connection, run_ids, removes_of)
