"""Builds the tables and files that are published of a simulated batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.pipeline.runs.blocked_entry_tables import block_table, limit_enforcement
from backtest_pipeline.pipeline.runs.daily_bars import DailyBars
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
    canonical_json,
    configurations,
    fingerprints,
    hash_of,
    run_id_of,
    series_id_of,
    snapshot_id_of,
)
from backtest_pipeline.pipeline.runs.own_columns import OwnColumns, own_columns_read
from backtest_pipeline.pipeline.runs.read_rows import Read
from backtest_pipeline.pipeline.versions import run_code
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.engines import engine_identity
from backtest_pipeline.simulation.metrics.daily import sampled_at_bars
from backtest_pipeline.simulation.metrics.equity import drawdowns, monthly_returns, position_values
from backtest_pipeline.simulation.metrics.metrics import METRICS_VERSION, undefined_reasons
from backtest_pipeline.simulation.orders import NOTHING_PENDING
from backtest_pipeline.simulation.trades import trade_columns
from backtest_pipeline.storage.artifacts.code_archive import installed_code
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.tables.datasets import DatasetVersion
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.storage.tables.environment import environment_hash
from backtest_pipeline.strategies.registry import strategy_of

TABLES_OF_RUNS = ("backtest_runs", "backtest_trades", "backtest_metrics", "block_events", "trials")
"""The tables that publishing a batch of runs writes in bulk."""
_SIDES = {1: "long", -1: "short", 0: "flat"}
_SUMMARY = ("total_return", "benchmark_return", "sharpe", "max_drawdown", "win_rate", "fees_paid")


@dataclass(frozen=True)
class RunIdentity:
    """What identifies a run: its configuration (canonical JSON) and its hash, data and code."""

    run_id: UUID
    series_id: UUID
    config: str
    config_hash: str
    dataset_versions: dict[str, str]
    snapshot_id: str
    code: str


def identify_runs(
    signals: Sequence[SignalRow],
    assets: Sequence[str],
    tf: str,
    inputs: Mapping[str, DatasetVersion],
    terms: RunTerms,
    daily: DailyBars,
    own: OwnColumns,
    compared: Mapping[str, Read],
) -> list[RunIdentity]:
    """The identities of every signal on every asset, signal by signal.

    Args:
        inputs: versions of the features, by asset.
        daily: the daily bars that mark the runs.
        own: the columns of the user's own; a run is made from those that it reads.
        compared: what the benchmark was built from, by partition.
    """
    shared = [
        {**compared, f"{asset}|{tf}": Read.whole(inputs[asset]), **daily.read_by(asset)}
        for asset in assets
    ]
    names = [own_columns_read(strategy_of(s.strategy), s.params, terms.config) for s in signals]
    sources = {
        read: [
            made_from({**of_asset, **by_asset.get(asset, {})})
            for asset, of_asset in zip(assets, shared, strict=True)
        ]
        for read in dict.fromkeys(names)
        for by_asset in [own.read_by(read)]
    }
    walks, held, engine = terms.walk_forward is not None, terms.benchmark, terms.config.engine
    codes = {
        name: run_code(name, is_walk_forward=walks, benchmark=held, engine=engine)
        for name in dict.fromkeys(one.strategy for one in signals)
    }
    return [
        RunIdentity(
            run_id_of(config_hash := one.hash, snapshot_id, code := codes[one.strategy]),
            series_id_of(config_hash, grown, code),
            canonical_json(one.config),
            config_hash,
            of_asset,
            snapshot_id,
            code,
        )
        for one, (of_asset, snapshot_id, grown) in zip(
            configurations(signals, assets, tf, terms),
            [of_asset for read in names for of_asset in sources[read]],
            strict=True,
        )
    ]


def made_from(read: Mapping[str, Read]) -> tuple[dict[str, str], str, dict[str, str]]:
    """Versions of what a run read by `input_key`, the hash of its contents, and the generations."""
    return (
        {key: one.version.version for key, one in read.items()},
        snapshot_id_of({key: one.content for key, one in read.items()}),
        {key: one.version.generation for key, one in read.items()},
    )


@dataclass(frozen=True)
class Publication:
    """A batch ready to be published.

    Attributes:
        uri, files: the artifact directory, named by a hash of its run ids, and its Parquet files.
        terms: terms of the runs.
        runs, trades, metrics, blocks: rows of the tables of runs.
        trials: the runs as rows of the trial ledger, in the same order.
    """

    uri: str
    files: dict[str, pa.Table]
    terms: RunTerms
    runs: pa.Table
    trades: pa.Table
    metrics: pa.Table
    blocks: pa.Table
    trials: pa.Table

    @property
    def run_ids(self) -> list[UUID]:
        """The run ids, in the order of the tables."""
        return [UUID(run_id) for run_id in self.runs["run_id"].to_pylist()]


def publication_of(
    batch: BatchResult,
    signals: Sequence[SignalRow],
    identities: Sequence[RunIdentity],
    ids: Mapping[str, int],
    terms: RunTerms,
    started_at: datetime,
    trials: pa.Table,
    uri: str | None = None,
) -> Publication:
    """Rows and files of all runs in a batch; column `c` of the batch is `identities[c]`.

    The directory is named by a hash of the run ids, unless `uri` names one that holds them already.
    """
    tf = batch.panel.timeframe.name
    run_ids = [str(identity.run_id) for identity in identities]
    uri = uri or f"runs/{tf}/{hash_of(sorted(run_ids))}"
    return Publication(
        uri=uri,
        files={
            "equity.parquet": _equity_table(batch, run_ids),
            "benchmark.parquet": benchmark_table(batch),
            "monthly_returns.parquet": monthly_table(batch, run_ids),
        },
        terms=terms,
        runs=runs_table(batch, signals, identities, ids, terms, started_at, uri).append_column(
            "trial_id", trials["trial_id"]
        ),
        trades=trades_table(batch, run_ids),
        metrics=metrics_table(batch, run_ids),
        blocks=block_table(batch, run_ids),
        trials=trials,
    )


def _dictionary(codes: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, pa.int32()), pa.array(list(names), pa.string())
    )


def _stamps(ts_us: np.ndarray) -> pa.Array:
    return pa.array(ts_us, pa.timestamp("us", "UTC"))


def _equity_table(batch: BatchResult, run_ids: Sequence[str]) -> pa.Table:
    marks, n_runs = batch.marks, batch.equity.shape[0]
    n_assets = len(batch.panel.assets)
    column = (np.arange(n_runs) * n_assets)[:, None] + marks.segment
    held = position_values(batch.panel, marks, batch.trades, batch.held, n_runs)
    exposure = np.divide(held, batch.equity, out=held, where=batch.equity > 0)
    return pa.table(
        {
            "run_id": _dictionary(column.ravel(), run_ids),
            "ts": _stamps(np.tile(marks.ts, n_runs)),
            "equity": batch.equity.ravel(),
            "drawdown": drawdowns(batch.equity, marks.offsets).ravel(),
            "exposure": exposure.ravel(),
        }
    )


def benchmark_table(batch: BatchResult) -> pa.Table:
    """The file of benchmarks: columns asset, ts and benchmark, one row a mark."""
    marks = batch.marks
    return pa.table(
        {
            "asset": _dictionary(marks.segment, batch.panel.assets),
            "ts": _stamps(marks.ts),
            "benchmark": batch.benchmark,
        }
    )


def monthly_table(batch: BatchResult, run_ids: Sequence[str]) -> pa.Table:
    """The file of monthly returns: columns run_id, month and return."""
    monthly = monthly_returns(batch.marks, batch.equity)
    return pa.table(
        {
            "run_id": _dictionary(monthly.column, run_ids),
            "month": pa.array(monthly.month.astype("M8[D]")),
            "return": monthly.value,
        }
    )


def trades_table(batch: BatchResult, run_ids: Sequence[str]) -> pa.Table:
    """Rows of `backtest_trades`, `run_id` as text."""
    columns = trade_columns(batch.trades)
    stamps = {name: _stamps(columns[name]) for name in ("entry_ts", "exit_ts")}
    stops = {name: copy.floats(columns[name]) for name in ("entry_stop", "exit_stop")}
    owner = _dictionary(batch.trades.column, run_ids).dictionary_decode()
    return pa.table({"run_id": owner, **columns, **stamps, **stops})


def metrics_table(batch: BatchResult, run_ids: Sequence[str]) -> pa.Table:
    """Rows of `backtest_metrics`, `run_id` as text."""
    undefined = [canonical_json(undefined_reasons(values)) for values in _each_column(batch)]
    at_bars = sampled_at_bars(batch.marks.offsets, batch.marks.ts)
    return pa.table(
        {
            "run_id": list(run_ids),
            "metrics_version": np.full(len(run_ids), METRICS_VERSION),
            "sampling": np.tile(np.where(at_bars, "bars", "daily"), len(batch.equity)),
            **{name: pa.array(values, from_pandas=True) for name, values in batch.metrics.items()},
            "undefined": undefined,
        }
    )


def _each_column(batch: BatchResult) -> list[dict[str, float]]:
    names = list(batch.metrics)
    table = np.column_stack(list(batch.metrics.values())).tolist()
    return [dict(zip(names, row, strict=True)) for row in table]


def runs_table(
    batch: BatchResult,
    signals: Sequence[SignalRow],
    identities: Sequence[RunIdentity],
    ids: Mapping[str, int],
    terms: RunTerms,
    started_at: datetime,
    uri: str,
) -> pa.Table:
    """Rows of `backtest_runs` but `trial_id`; arguments as `publication_of` takes them."""
    panel, n = batch.panel, len(identities)
    n_assets = len(panel.assets)
    engine, engine_version = engine_identity(terms.config.engine)
    first, last = panel.offsets[:-1], panel.offsets[1:] - 1
    by_signal = [signal for signal in signals for _ in range(n_assets)]
    by_asset = list(panel.assets) * len(signals)

    def same(value: Any) -> list[Any]:
        return [value] * n

    return pa.table(
        {
            "run_id": [str(identity.run_id) for identity in identities],
            "series_id": [str(identity.series_id) for identity in identities],
            "signal_id": [signal.signal_id for signal in by_signal],
            "signal_name": [signal.name for signal in by_signal],
            "strategy": [signal.strategy for signal in by_signal],
            "params": [canonical_json(signal.params) for signal in by_signal],
            "id": [ids[asset] for asset in by_asset],
            "symbol": by_asset,
            "tf": same(panel.timeframe.name),
            "split": same(terms.split),
            "window_start": pa.array(same(terms.window.start), pa.date32()),
            "window_end": pa.array(same(terms.window.end), pa.date32()),
            "first_ts": _stamps(np.tile(panel.ts[first], len(signals))),
            "last_ts": _stamps(np.tile(panel.ts[last], len(signals))),
            "n_bars": np.tile(panel.lengths, len(signals)),
            "direction": same(terms.config.direction.value),
            "status": same("completed"),
            "started_at": pa.array(same(started_at), pa.timestamp("us", "UTC")),
            "completed_at": pa.array(same(datetime.now(UTC)), pa.timestamp("us", "UTC")),
            "is_current": same(True),
            "config": [identity.config for identity in identities],
            "results": results_of(batch),
            "snapshot_id": [identity.snapshot_id for identity in identities],
            "dataset_version_ids": [
                canonical_json(identity.dataset_versions) for identity in identities
            ],
            "code_version": [identity.code for identity in identities],
            "code_archive": same(installed_code().uri),
            "config_hash": [identity.config_hash for identity in identities],
            "environment_hash": same(environment_hash()),
            "engine": same(engine),
            "engine_version": same(engine_version),
            "seed": np.zeros(n, np.int64),
            "result_fingerprint": fingerprints(batch),
            "artifact_uri": same(uri),
        }
    )


def results_of(batch: BatchResult) -> list[str]:
    """The JSON summary of each run."""
    summaries = []
    blocks = limit_enforcement(batch)
    for column, metrics in enumerate(_each_column(batch)):
        pending = int(batch.pending[column])
        summaries.append(
            canonical_json(
                {
                    "summary": {
                        name: None if np.isnan(metrics[name]) else metrics[name]
                        for name in _SUMMARY
                    },
                    "trades": int(metrics["trade_count"]),
                    "pending": None if pending == NOTHING_PENDING else _SIDES[pending],
                    "liquidated": bool(batch.liquidated[column]),
                    "blocked_entries": blocks[column]["total"],
                    "conflicting_entries": int(batch.conflicts[column]),
                    "limit_enforcement": blocks[column],
                }
            )
        )
    return summaries
