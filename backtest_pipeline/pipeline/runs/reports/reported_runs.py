"""Reads what the report of a run shows; what cannot be read is said in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import (
    ArtifactCorrupt,
    ProvenanceMissing,
    ResultPathMissing,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US
from backtest_pipeline.pipeline.runs.query import RunDetail, run_summary, stored_series
from backtest_pipeline.pipeline.runs.reports.assess_command import assess_command
from backtest_pipeline.pipeline.runs.reports.bands import intervals_of
from backtest_pipeline.pipeline.versions import PLANNED, ROBUSTNESS_CODE
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.report.number_formats import day, written
from backtest_pipeline.report.run_report.contents import (
    BoardPlace,
    Closes,
    Doubts,
    Fan,
    Holdings,
    ReportedRun,
    RunSeries,
)
from backtest_pipeline.research.robustness.run_bands import BANDS_VERSION
from backtest_pipeline.research.validation.efficiency import in_words
from backtest_pipeline.storage.run_tables.block_events import list_blocks
from backtest_pipeline.storage.run_tables.leaderboard import place_on_board
from backtest_pipeline.storage.run_tables.recorded_runs import recorded_runs, stored_trades
from backtest_pipeline.storage.run_tables.robustness import stored_robustness
from backtest_pipeline.storage.run_tables.run_bands import stored_bands
from backtest_pipeline.storage.run_tables.walk_forward import stored_folds
from backtest_pipeline.storage.tables.datasets import input_key
from backtest_pipeline.strategies.cross_section.definition import KIND as CROSS_SECTION

UNREADABLE = (ArtifactCorrupt, ResultPathMissing)
"""Files that are damaged or gone; a folder or bucket out of reach fails the report."""
_MOST_BLOCKED = 1000
_OF_SEVERAL = (PLANNED, CROSS_SECTION)
"""Splits of runs that may trade several assets in one book, and have no one price then."""
_BENCHMARKS = {"asset": "buy and hold", "cash": "cash", "universe": "all assets"}
_SIDES = {"both": "long and short", "long": "long only", "short": "short only"}


@dataclass
class _ReportInputs:
    """A workspace and the run, and what of it could not be read."""

    workspace: Workspace
    run: RunDetail
    missing: list[str] = field(default_factory=list)


@retried
def reported_run(workspace: Workspace, run_id: UUID) -> ReportedRun:
    """A stored run with all that its report shows.

    Files that are missing or damaged leave out what is drawn from them, with the reason.

    Raises:
        RunNotFound: where it is not stored, or is being deleted.
    """
    run = run_summary(workspace, run_id)
    reading = _ReportInputs(workspace, run)
    with workspace.database.begin() as connection:
        trades = stored_trades(connection, run_id)
        blocked = list_blocks(connection, run_id, _MOST_BLOCKED).rows
        bands = stored_bands(connection, run_id)
        robustness = stored_robustness(connection, run_id)
        folds = stored_folds(connection, run_id)
        place = place_on_board(connection, run_id)
    if bands is not None and bands["bands_version"] != BANDS_VERSION:
        bands = None
    config = run.config
    return ReportedRun(
        run_id=str(run_id),
        name=run.signal_name,
        symbol=run.symbol,
        timeframe=run.timeframe,
        subject=_subject(run),
        benchmark_name=_benchmark(config.get("benchmark", "asset")),
        warnings=tuple(_warnings(run)),
        metrics={**run.metrics, **run.significance},
        undefined=run.undefined,
        risk_free=float(config.get("risk_free") or 0.0),
        liquidated=bool(run.results.get("liquidated")),
        series=_series(reading),
        closes=_closes(reading),
        trades=trades,
        blocked=[{**event, "ts": _micros(event["ts"])} for event in blocked],
        n_blocked=int(run.results.get("blocked_entries") or len(blocked)),
        intervals=None if bands is None else intervals_of(bands),
        fan=None if bands is None else _fan(bands),
        doubts=None if robustness is None else _doubts(reading, robustness),
        assess=_assess(run),
        counting_rule=run.counting_rule.value,
        board=None if place is None else BoardPlace(**place),
        settings={**config, "n_trials counts": run.counting_rule.value},
        provenance={"run_id": run.run_id, **run.provenance},
        folds=[_with_micros(fold) for fold in folds],
        walk_forward=_judged(run.walk_forward),
        holdings=_holdings(reading) if run.split == CROSS_SECTION else None,
        missing=tuple(reading.missing),
    )


def _subject(run: RunDetail) -> str:
    first, last = (day(_micros(ts)) for ts in (run.first_ts, run.last_ts))
    parts = [f"{first} to {last}", f"{run.n_bars:,} bars", _SIDES[run.direction]]
    if costs := run.config.get("costs"):
        parts.append(f"{costs['fee_bps']:g} + {costs['slippage_bps']:g} bps a side")
    return " · ".join(parts)


def _micros(stamp: datetime) -> int:
    return round(stamp.timestamp() * 1e6)


def _with_micros(fold: Mapping[str, Any]) -> dict[str, Any]:
    stamps = ("train_start", "train_end", "test_start", "test_end")
    return {**fold, **{name: _micros(fold[name]) for name in stamps}}


def _judged(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return ""
    verdict = in_words(summary["verdict"], summary["reason"])
    if summary["efficiency"] is None or "efficiency" in verdict:
        return f"Walk-forward: {verdict}."
    return f"Walk-forward: {verdict}; efficiency {written(summary['efficiency'], 'ratio')}."


def _benchmark(name: str) -> str:
    return _BENCHMARKS.get(name, f"{name} held")


def _assess(run: RunDetail) -> str:
    if run.split != "full":
        return ""
    return assess_command(run.config)


def _warnings(run: RunDetail) -> Iterator[str]:
    if run.synthetic:
        yield "The bars are synthetic: results on them say nothing about a real market."
    if run.quarantine:
        yield f"In quarantine because a replay gave a different result: {run.quarantine['reason']}"
    if run.results.get("within_training"):
        yield "The model may have read in training what it planned: part of this is memory."
    if run.sampling == "bars":
        yield "Equity is marked at the closes of bars alone: drawdowns between them are not seen."
    if run.results.get("liquidated"):
        yield "The account was liquidated: equity reached zero."
    if blocked := run.results.get("blocked_entries"):
        yield f"Blocked entries: {blocked:,}; the run's blocked entries list the reasons."
    if conflicts := run.results.get("conflicting_entries"):
        yield f"{conflicts:,} bars had entries of both sides; none was made on them."
    if not run.is_current:
        yield "A newer run of this configuration is stored."


def _series(reading: _ReportInputs) -> RunSeries | None:
    run = reading.run
    row = {"run_id": run.run_id, "symbol": run.symbol, "artifact_uri": run.artifact_uri}
    try:
        table = stored_series(reading.workspace, row)
    except UNREADABLE as error:
        reading.missing.append(f"Curves and figures by day are not shown: {error}.")
        return None
    names = ("equity", "drawdown", "exposure", "benchmark")
    ts = table["ts"].cast(pa.int64()).to_numpy()
    return RunSeries(ts, **{name: table[name].to_numpy() for name in names})


def _closes(reading: _ReportInputs) -> Closes | None:
    """Closes of the bars that were traded, from the snapshot that the run recorded."""
    run, artifacts = reading.run, reading.workspace.artifacts
    try:
        with reading.workspace.database.begin() as connection:
            (recorded,) = recorded_runs(connection, [run.run_id])
        if len(recorded.snapshots) > 1 and run.split in _OF_SEVERAL:
            return None
        snapshot = recorded.snapshots.get(input_key(Partition(run.symbol, run.timeframe)))
        if snapshot is None:
            several = "symbols" in run.config
            why = "several assets were traded" if several else "the bars of this run are not stored"
            reading.missing.append(f"The price is not shown: {why}.")
            return None
        parts = [artifacts.read_snapshot(u, ["ts", "close"], [run.symbol]) for u in snapshot.uris]
    except (*UNREADABLE, ProvenanceMissing) as error:
        reading.missing.append(f"The price is not shown: {error}.")
        return None
    table = pa.concat_tables(parts)
    ts = table["ts"].cast(pa.int64()).to_numpy()
    first, last = (_micros(stamp) for stamp in (run.first_ts, run.last_ts))
    within = (ts >= first) & (ts <= last)
    return Closes(ts[within], table["close"].to_numpy()[within])


def _holdings(reading: _ReportInputs) -> Holdings | None:
    """The weights of a cross-section by date; a date without a position holds nothing."""
    run, read = reading.run, reading.workspace.artifacts.read_table
    try:
        dates = read(run.artifact_uri, "daily_ic.parquet", ["ts"])
        table = read(run.artifact_uri, "daily_weights.parquet")
    except UNREADABLE as error:
        reading.missing.append(f"Weights are not shown: {error}.")
        return None
    if not table.num_rows:
        return None
    names = table["symbol"].cast(pa.string()).combine_chunks().dictionary_encode()
    ts, codes = table["ts"].cast(pa.int64()).to_numpy(), names.indices.to_numpy()
    stamps = np.union1d(ts, dates["ts"].cast(pa.int64()).to_numpy())
    weights = np.zeros((len(stamps), len(names.dictionary)))
    weights[np.searchsorted(stamps, ts), codes] = table["weight"].to_numpy()
    return Holdings(names.dictionary.to_pylist(), stamps, int(stamps[-1]), weights)


def _fan(row: Mapping[str, Any]) -> Fan:
    days = np.array(row["days"], "M8[D]").astype(np.int64)
    curves = (np.array(row[name], np.float64) for name in ("p05", "p25", "p75", "p95"))
    return Fan((days + 1) * DAY_US - CLOSE_STAMP_US, *curves)


def _doubts(reading: _ReportInputs, row: Mapping[str, Any]) -> Doubts:
    if row["code_version"] != ROBUSTNESS_CODE:
        reading.missing.append(
            f"Robustness was assessed by an older version; this does it again: "
            f"{_assess(reading.run)}"
        )
    uri, name = row["artifact_uri"], "samples.parquet"
    draws = np.empty(0)
    try:
        table = reading.workspace.artifacts.read_table(uri, name)
    except UNREADABLE as error:
        reading.missing.append(f"Random entries are not drawn: {error}.")
    else:
        if "random_entry_return" in table.column_names:
            draws = table["random_entry_return"].to_numpy().astype(np.float64)
    return Doubts(row, draws[~np.isnan(draws)], row["draws"], row["seed"])
