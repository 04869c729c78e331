"""A stored run as an HTML page, and its artifact files."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.pipeline.runs.query import RunDetail, get_run, run_timeseries, run_trades
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.run_page import RunFacts, run_page

_TRADES = 50


def run_report(workspace: Workspace, run_id: UUID) -> str:
    """The run as a self-contained HTML page; raises as `runs.query.get_run`."""
    run = get_run(workspace, run_id)
    series = run_timeseries(workspace, run_id, ("equity", "benchmark", "drawdown"))
    trades = run_trades(workspace, run_id, limit=_TRADES)
    index = utc_index(series["ts"].cast(pa.int64()).to_numpy())
    settings = {name: fact for name, fact in run.config.items() if name != "signal"}
    settings["n_trials counts"] = run.counting_rule.value
    return run_page(
        RunFacts(
            title=f"{run.signal_name} on {run.symbol} {run.timeframe}",
            subject=_subject(run),
            warnings=tuple(_warnings(run)),
            metrics={**run.metrics, **run.significance},
            undefined=run.undefined,
            equity=pd.Series(series["equity"].to_numpy(), index),
            benchmark=pd.Series(series["benchmark"].to_numpy(), index),
            drawdown=pd.Series(series["drawdown"].to_numpy(), index),
            trades=trades.rows,
            n_trades=int(run.metrics["trade_count"] or 0),
            settings=settings,
            provenance={"run_id": run.run_id, **run.provenance},
        )
    )


def run_artifact(workspace: Workspace, run_id: UUID, name: str) -> bytes:
    """Read a file of a run's artifacts, checked against the manifest.

    Runs that were computed together share files; the column `run_id` says whose a row is.

    Args:
        workspace: the open store.
        run_id: the run.
        name: file name as listed in the manifest; any other name is rejected.

    Raises:
        UnknownName: for a name that the manifest does not list.
        RunNotFound, ResultPathMissing, ArtifactCorrupt: as `pipeline.runs.query` says.
    """
    uri = get_run(workspace, run_id).artifact_uri
    files = workspace.artifacts.manifest(uri).files
    if name not in files:
        raise UnknownName("artifact", name, files)
    return workspace.artifacts.read_bytes(uri, name)


def _subject(run: RunDetail) -> str:
    params = ", ".join(f"{name} {value}" for name, value in run.params.items())
    side = {"both": "long and short", "long": "long only", "short": "short only"}[run.direction]
    return (
        f"{run.strategy} ({params}), {side}, on {run.n_bars:,} bars that close from "
        f"{run.first_ts:%Y-%m-%d} to {run.last_ts:%Y-%m-%d} (UTC)"
    )


def _warnings(run: RunDetail) -> Iterator[str]:
    if run.synthetic:
        yield "The bars are synthetic: results on them say nothing about a real market."
    if run.quarantine:
        yield f"In quarantine because a replay gave a different result: {run.quarantine['reason']}"
    if run.sampling == "bars":
        yield "Equity is marked at the closes of bars alone: drawdowns between them are not seen."
    if run.results.get("liquidated"):
        yield "The account was liquidated."
    if blocked := run.results.get("blocked_entries"):
        yield f"Blocked entries: {blocked:,}; the run's blocked entries list the reasons."
    if conflicts := run.results.get("conflicting_entries"):
        yield f"{conflicts:,} bars had entries of both sides; none was made on them."
    if not run.is_current:
        yield "A newer run of this configuration is stored."
