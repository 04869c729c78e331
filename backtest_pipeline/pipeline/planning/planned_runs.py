"""Runs that follow the plans of books: their identity, and publishing them in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import InvalidInput, NotEnoughBars
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.planning.book_data import load_book
from backtest_pipeline.pipeline.planning.judgement import JudgedPlan, judged
from backtest_pipeline.pipeline.planning.planned_account import (
    PlannedAccount,
    label_of,
    plan_log_counts,
    planned_account,
    planned_config,
)
from backtest_pipeline.pipeline.planning.planned_identity import (
    identity_of,
    key_of_plans,
    models_asked,
    run_config,
    strategy_name,
)
from backtest_pipeline.pipeline.planning.probed_triggers import require_triggers_probed
from backtest_pipeline.pipeline.planning.records import keep_transcript, record_of
from backtest_pipeline.pipeline.planning.strategists import replan_settings
from backtest_pipeline.pipeline.planning.trigger_columns import with_trigger_columns
from backtest_pipeline.pipeline.ranking.deflation import (
    deflate_current_runs,
    families_on,
    with_deflated,
)
from backtest_pipeline.pipeline.ranking.ledger import trials_of
from backtest_pipeline.pipeline.runs.identity import RunTerms, canonical_json, hash_of
from backtest_pipeline.pipeline.runs.publish import (
    Publication,
    RunIdentity,
    benchmark_table,
    metrics_table,
    monthly_table,
    results_of,
    runs_table,
    trades_table,
)
from backtest_pipeline.pipeline.runs.run_files import keep_files
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.versions import PLANNED
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.metrics.equity import drawdowns
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.plan_tables.plan_history import (
    LoggedPlan,
    plan_log_table,
    read_plans,
    require_newest,
    write_plan_log,
)
from backtest_pipeline.storage.plan_tables.replan_requests import request_replans_with
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import combined
from backtest_pipeline.storage.run_tables.runs import (
    current_artifacts,
    publish_runs,
    retire_run_of_book,
    runs_of_books,
)
from backtest_pipeline.storage.run_tables.trials import record_trials
from backtest_pipeline.storage.tables.dimensions import SignalRow, asset_ids

JUDGE = "judge"
"""Who requests what the judge asks for, in `replan_requests.requested_by`."""


@dataclass(frozen=True)
class FollowedBook:
    """A run under the plans of a book, as it is stored.

    Attributes:
        run_id: the run.
        is_new: whether it was computed now, or was stored already.
        judged: what the judge complains of in words; empty where it does not.
    """

    run_id: UUID
    is_new: bool
    judged: tuple[str, ...] = ()


@retried
def follow_book(
    workspace: Workspace, book: PlanBook, tf: str, config: SimulationConfig
) -> FollowedBook:
    """Run a book under its plans and publish the run, unless it is stored already.

    The judge scores the plan in force by the run at the book's shortest timeframe. Where it
    complains, a replan is asked for in the transaction that publishes the run.

    Args:
        workspace: the open store.
        book: the book.
        tf: one of its timeframes.
        config: costs and account; sizing and stops are said by the plans.

    Raises:
        InvalidInput: where the book has no plan yet.
        NotEnoughBars: where there are fewer than two bars under its plans.
        LooksAhead: for a strategy that a trigger follows and that reads later bars.
    """
    with workspace.database.begin() as connection:
        logged = read_plans(connection, book.book_id)
    if not logged:
        raise InvalidInput(
            f"plan book {book.name} has no plan yet; `backtest-pipeline plans replan {book.name}` "
            "makes one"
        )
    data, config = load_book(workspace, book), planned_config(config)
    plans = [plan_from(row.plan) for row in logged]
    batch = data.with_rows(tf)
    if not len(batch.panel):
        raise NotEnoughBars(
            f"{label_of(book.symbols)}|{tf}: no bars are stored; refresh them first"
        )
    batch = with_trigger_columns(workspace, batch, plans)
    whole = {**run_config(book, tf, plans, config), **models_asked(logged)}
    identity = identity_of(whole, key_of_plans(logged), batch)
    with workspace.database.begin() as connection:
        uri = current_artifacts(connection, [identity.run_id]).get(identity.run_id)
    if uri is not None and not workspace.artifacts.gone([uri]):
        return FollowedBook(identity.run_id, is_new=False)
    started_at = datetime.now(UTC)
    panel = batch.own.on(batch.panel)
    require_triggers_probed(workspace, panel, plans)
    account = planned_account(panel, plans, config, label_of(book.symbols))
    said = JudgedPlan()
    if tf == book.timeframes[0]:
        record, settings = record_of(logged[-1]), replan_settings(book)
        said = judged(workspace, book, data, record, plans, settings, config)
    _publish(workspace, book, logged, account, identity, batch, config, started_at, said)
    return FollowedBook(identity.run_id, is_new=True, judged=tuple(t.detail for t in said.triggers))


@retried
def current_runs_of_books(
    workspace: Workspace, books: Sequence[str], tf: str
) -> list[dict[str, Any]]:
    """The current runs of these books at a timeframe by book, with their metrics."""
    with workspace.database.begin() as connection:
        return runs_of_books(connection, books, tf)


def results_of_plans(
    account: PlannedAccount, logged: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> str:
    """`backtest_runs.results` of a run under plans, as canonical JSON.

    Args:
        account: the simulated book.
        logged: `replan_reasons` and `suppressed` of its plans.
        config: its configuration.
    """
    (common,) = results_of(account.account)
    blocks = account.limit_enforcement()
    log = plan_log_counts(
        [row["replan_reasons"] for row in logged], sum(row["suppressed"] for row in logged)
    )
    return canonical_json(
        {
            **json.loads(common),
            "blocked_entries": blocks["entries"]["blocked"],
            "limit_enforcement": blocks,
            "plan_log": log,
            "within_training": config["within_training"],
        }
    )


def _publish(
    workspace: Workspace,
    book: PlanBook,
    logged: Sequence[LoggedPlan],
    account: PlannedAccount,
    identity: RunIdentity,
    batch: PanelBatch,
    config: SimulationConfig,
    started_at: datetime,
    said: JudgedPlan,
) -> None:
    """Files first, then rows, plans, blocks and what the judge asks for in one transaction.

    Raises:
        StoreOvertaken: where the book was planned again, or its data replaced, meanwhile.
    """
    tf, label = batch.panel.timeframe.name, label_of(book.symbols)
    with workspace.database.begin() as connection:
        ids = asset_ids(connection, book.symbols)
    asset_id = ids[book.symbols[0]] if len(book.symbols) == 1 else None
    published = _publication(book, logged, account, identity, batch, config, started_at, asset_id)
    features = {str(Partition(asset, tf)): one.version for asset, one in batch.inputs.items()}
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        copy.lock_cells(cursor, PLANNED, tf, [book.book_id])
        require_newest(cursor, book.book_id, logged[-1], features)
        keep_files(workspace.artifacts, published)
        record_trials(cursor, published.trials)
        found = families_on(cursor, tf, [label], published.trials["trial_id"].to_pylist())
        own = published.trials.slice(0, 1)
        metrics = with_deflated(published.metrics, published.runs, own, found)
        retire_run_of_book(cursor, book.name, tf)
        publish_runs(cursor, published.runs, published.trades, metrics, published.blocks)
        opinion = None if said.opinion is None else keep_transcript(workspace, said.opinion)
        write_plan_log(cursor, plan_log_table(str(identity.run_id), logged, opinion))
        request_replans_with(cursor, said.triggers, JUDGE)
        deflate_current_runs(cursor, tf, [label], found, published.runs["run_id"].to_pylist())


def _publication(
    book: PlanBook,
    logged: Sequence[LoggedPlan],
    account: PlannedAccount,
    identity: RunIdentity,
    data: PanelBatch,
    config: SimulationConfig,
    started_at: datetime,
    asset_id: int | None,
) -> Publication:
    batch, run_ids = account.account, [str(identity.run_id)]
    terms, label = RunTerms(config), batch.panel.assets[0]
    uri = f"runs/{batch.panel.timeframe.name}/{hash_of(run_ids)}"
    trials = _trials(book, logged, account, data, terms)
    signal = SignalRow(0, book.name, strategy_name(book.strategist), dict(book.config))
    runs = runs_table(batch, [signal], [identity], {label: 0}, terms, started_at, uri)
    reasons = [{"replan_reasons": p.replan_reasons, "suppressed": p.suppressed} for p in logged]
    own = {
        "signal_id": pa.array([None], pa.int32()),
        "id": pa.array([asset_id], pa.int32()),
        "split": pa.array([PLANNED]),
        "results": pa.array([results_of_plans(account, reasons, json.loads(identity.config))]),
        "result_fingerprint": pa.array([account.fingerprint]),
        "book": pa.array([book.name]),
        "symbols": pa.array([list(book.symbols)], pa.list_(pa.string())),
        "trial_id": trials["trial_id"].slice(0, 1),
    }
    columns = {name: runs[name] for name in runs.column_names}
    trades = trades_table(batch, run_ids)
    for name, values in account.trade_columns().items():
        trades = trades.append_column(name, values)
    return Publication(
        uri=uri,
        files={
            "equity.parquet": _equity_table(account, run_ids[0]),
            "benchmark.parquet": benchmark_table(batch),
            "monthly_returns.parquet": monthly_table(batch, run_ids),
        },
        terms=terms,
        runs=pa.table({**columns, **own}),
        trades=trades,
        metrics=metrics_table(batch, run_ids),
        blocks=account.blocks(run_ids[0]),
        trials=trials,
    )


def _equity_table(account: PlannedAccount, run_id: str) -> pa.Table:
    batch = account.account
    return pa.table(
        {
            "run_id": pa.array([run_id] * len(batch.marks.ts), pa.string()),
            "ts": pa.array(batch.marks.ts, pa.timestamp("us", "UTC")),
            "equity": batch.equity[0],
            "drawdown": drawdowns(batch.equity, batch.marks.offsets)[0],
            "exposure": account.exposure,
        }
    )


def _trials(
    book: PlanBook,
    logged: Sequence[LoggedPlan],
    account: PlannedAccount,
    data: PanelBatch,
    terms: RunTerms,
) -> pa.Table:
    """The run as a trial of the ledger, and after it each proposal that became a plan.

    Proposals of equal terms are one set of parameters, and a row once. How each would have done
    alone is not known, so that it has no returns, and counts in full among independent trials too.
    """
    name, own = strategy_name(book.strategist), {"config": dict(book.config), "book": book.name}
    proposals: dict[str, LoggedPlan] = {}
    for row in logged:
        proposals.setdefault(_terms_key(row), row)
    batch, n = account.account, 1 + len(proposals)
    label = batch.panel.assets[0]
    bars = {asset: version.input_version for asset, version in data.inputs.items()}
    read = data.own.versions_with(bars, data.own.names)
    of_bars = combined(*(f"{asset} {version}" for asset, version in sorted(read.items())))
    repeated = replace(
        batch,
        equity=np.repeat(batch.equity, n, axis=0),
        metrics={metric: np.repeat(values, n) for metric, values in batch.metrics.items()},
    )
    trials = trials_of(
        repeated,
        [own, *({**own, "plan": key} for key in proposals)],
        strategy=name,
        dataset_versions=[
            {label: of_bars},
            *(
                {label: f"plan {row.sequence} {row.effective_ts.isoformat()}"}
                for row in proposals.values()
            ),
        ],
        terms=terms,
        source="strategist",
    )
    return pa.concat_tables([trials.slice(0, 1), _unmeasured(trials.slice(1))])


def _unmeasured(trials: pa.Table) -> pa.Table:
    """These trials without returns and their moments."""
    n, schema = trials.num_rows, trials.schema
    moments = ("sharpe", "skew", "kurtosis", "total_return")
    unknown = {
        **{name: pa.nulls(n, schema.field(name).type) for name in moments},
        "n_obs": pa.array(np.zeros(n), schema.field("n_obs").type),
        "weekly_returns": pa.array([[]] * n, schema.field("weekly_returns").type),
    }
    columns = {name: unknown.get(name, trials[name]) for name in schema.names}
    return pa.table(columns, schema=schema)


def _terms_key(row: LoggedPlan) -> str:
    """Hash of what a plan says, without when."""
    times = ("plan_id", "generated_at", "effective_ts", "valid_until", "regime")
    return hash_of({name: value for name, value in row.plan.items() if name not in times})
