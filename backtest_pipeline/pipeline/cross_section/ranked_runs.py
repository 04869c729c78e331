"""Runs that rank a universe: computing one and publishing it in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pyarrow as pa

from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.cross_section.ranked_account import (
    RankedAccount,
    ranked_account,
)
from backtest_pipeline.pipeline.cross_section.ranked_identity import (
    UNIVERSE,
    RankedTerms,
    identity_of,
    run_config,
    strategy_name,
    tried_params,
)
from backtest_pipeline.pipeline.cross_section.ranked_universe import load_universe, universe_at
from backtest_pipeline.pipeline.ranking.deflation import (
    deflate_current_runs,
    families_on,
    with_deflated,
)
from backtest_pipeline.pipeline.ranking.ledger import trials_of
from backtest_pipeline.pipeline.runs.blocked_entry_tables import block_table
from backtest_pipeline.pipeline.runs.identity import RunTerms, hash_of
from backtest_pipeline.pipeline.runs.publish import (
    Publication,
    RunIdentity,
    benchmark_table,
    metrics_table,
    monthly_table,
    runs_table,
    trades_table,
)
from backtest_pipeline.pipeline.runs.run_files import keep_files
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.simulation.metrics.equity import drawdowns
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import combined
from backtest_pipeline.storage.run_tables.cross_sections import (
    require_features,
    retire_cross_section,
)
from backtest_pipeline.storage.run_tables.runs import current_artifacts, publish_runs
from backtest_pipeline.storage.run_tables.trials import record_trials
from backtest_pipeline.storage.tables.datasets import DatasetVersion
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.strategies.cross_section.definition import KIND, CrossSection


@retried
def run_ranked(
    workspace: Workspace,
    rule: CrossSection,
    tf: str,
    terms: RankedTerms,
    source: str = "run",
    *,
    rebuild: bool = False,
) -> tuple[UUID, bool]:
    """Run a cross-section on the stored features and publish the run, unless it is stored already.

    Args:
        workspace: the open store.
        rule: the strategy.
        tf: name of the timeframe.
        terms: costs, window and universe.
        source: of its trial: `run`, or `refresh`.
        rebuild: compute and publish it even if it is stored.

    Returns:
        Its id, and whether it was computed now.

    Raises:
        UnknownName, BadSymbols: for a universe that the store does not have.
        NotEnoughBars, InvalidInput: as `simulate_ranked`.
        StoreOvertaken: where features were replaced meanwhile.
    """
    tf, started_at = timeframe(tf).name, datetime.now(UTC)
    universe = universe_at(workspace, tf, terms.symbols)
    batch = load_universe(workspace, rule, tf, universe)
    config = run_config(rule, tf, terms, universe)
    identity = identity_of(config, batch.inputs)
    with workspace.database.begin() as connection:
        uri = current_artifacts(connection, [identity.run_id]).get(identity.run_id)
    if uri is not None and not rebuild and workspace.artifacts.is_intact(uri):
        return identity.run_id, False
    account = ranked_account(rule, batch.panel, terms.config, terms.window, config["symbol"])
    published = _publication(
        rule, account, identity, batch.inputs, terms, config, started_at, source
    )
    _publish(workspace, published, identity, config)
    return identity.run_id, True


def _publish(
    workspace: Workspace, published: Publication, identity: RunIdentity, config: Mapping[str, Any]
) -> None:
    """Files first, then rows in one transaction."""
    tf = config["timeframe"]
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        copy.lock_cells(cursor, KIND, tf, [0])
        require_features(cursor, identity.dataset_versions)
        keep_files(workspace.artifacts, published)
        record_trials(cursor, published.trials)
        found = families_on(cursor, tf, [UNIVERSE], published.trials["trial_id"].to_pylist())
        metrics = with_deflated(published.metrics, published.runs, published.trials, found)
        retire_cross_section(cursor, published.runs)
        publish_runs(cursor, published.runs, published.trades, metrics, published.blocks)
        deflate_current_runs(cursor, tf, [UNIVERSE], found, published.runs["run_id"].to_pylist())


def _publication(
    rule: CrossSection,
    account: RankedAccount,
    identity: RunIdentity,
    inputs: Mapping[str, DatasetVersion],
    terms: RankedTerms,
    config: Mapping[str, Any],
    started_at: datetime,
    source: str,
) -> Publication:
    batch, run_ids = account.book.account, [str(identity.run_id)]
    of_runs = RunTerms(terms.config, terms.window, config["benchmark"])
    label = batch.panel.assets[0]
    uri = f"runs/{batch.panel.timeframe.name}/{hash_of(run_ids)}"
    of_bars = combined(*(f"{asset} {v.version}" for asset, v in sorted(inputs.items())))
    trials = trials_of(
        replace(batch, panel=replace(batch.panel, assets=(UNIVERSE,))),
        [tried_params(rule, terms)],
        strategy=strategy_name(rule),
        dataset_versions={UNIVERSE: of_bars},
        terms=of_runs,
        source=source,
    )
    signal = SignalRow(0, rule.name, strategy_name(rule), config["params"])
    runs = runs_table(batch, [signal], [identity], {label: 0}, of_runs, started_at, uri)
    own = {
        "signal_id": pa.array([None], pa.int32()),
        "id": pa.array([None], pa.int32()),
        "split": pa.array([KIND]),
        "direction": pa.array(["long" if rule.side == "long" else "both"]),
        "results": pa.array([account.results()]),
        "result_fingerprint": pa.array([account.fingerprint]),
        "symbols": pa.array([sorted(inputs)], pa.list_(pa.string())),
        "trial_id": trials["trial_id"],
    }
    trades = trades_table(batch, run_ids)
    for name, values in account.trade_columns().items():
        trades = trades.append_column(name, values)
    return Publication(
        uri=uri,
        files={
            "equity.parquet": _equity_table(account, run_ids[0]),
            "benchmark.parquet": benchmark_table(batch),
            "monthly_returns.parquet": monthly_table(batch, run_ids),
            **{f"{name}.parquet": table for name, table in account.files.items()},
        },
        terms=of_runs,
        runs=pa.table({**{name: runs[name] for name in runs.column_names}, **own}),
        trades=trades,
        metrics=metrics_table(batch, run_ids),
        blocks=block_table(batch, run_ids),
        trials=trials,
    )


def _equity_table(account: RankedAccount, run_id: str) -> pa.Table:
    batch = account.book.account
    return pa.table(
        {
            "run_id": pa.array([run_id] * len(batch.marks.ts), pa.string()),
            "ts": pa.array(batch.marks.ts, pa.timestamp("us", "UTC")),
            "equity": batch.equity[0],
            "drawdown": drawdowns(batch.equity, batch.marks.offsets)[0],
            "exposure": account.book.exposure,
        }
    )
