"""The assets of plan books: `strategy_plans`, and the runs that follow the plans."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.partitions import (
    by_asset_and_timeframe,
    partitions_of,
    require_sound_run,
    timeframes_partitions,
)
from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.defs.stored_events import PartitionReports, StoredRows
from backtest_pipeline.market.errors import BacktestError, NotEnoughBars
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.planning.book_replans import replan
from backtest_pipeline.pipeline.planning.books import books_at, request_replan, stored_plans
from backtest_pipeline.pipeline.planning.planned_runs import current_runs_of_books, follow_book
from backtest_pipeline.pipeline.stage import of_the_environment
from backtest_pipeline.pipeline.versions import PLANNED_CODE, PLANS_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.provenance import combined

_PLANS = table_schema(
    ("book", "text", "name of the plan book"),
    ("sequence", "integer", "1, 2, 3 ... within the book"),
    ("plan_id", "text", "hash of the content"),
    ("effective_ts", "timestamptz", "from when it is followed, market time"),
    ("valid_until", "timestamptz", "no entries after it, market time"),
    ("replan_reasons", "text[]", "why it was made"),
    ("origin", "text", "valid, retried or fallback"),
    ("plan", "jsonb", "triggers, limits and sizing"),
)


_RUNS = table_schema(
    ("run_id", "uuid", "hash of plans, data, configuration and code"),
    ("book", "text", "name of the plan book"),
    ("symbol", "text", "the symbol, or those that share the account, joined by +"),
    ("tf", "text", "timeframe"),
    *((metric.name, metric.unit, metric.formula) for metric in (*METRICS, *FAMILY_METRICS)),
)


class Books(dg.Config):
    """Which plan books."""

    books: list[str] = Field(
        default=[], description="names of plan books; empty for all of the partition"
    )


class Replanning(Books):
    """Which plan books, and whether to plan them where nothing asks for that."""

    replan: bool = Field(
        default=False, description="plan again even where nothing has triggered it"
    )
    follow_only: bool = Field(
        default=False,
        description="plan nothing: run the books under the plans that they have; requests for "
        "replans wait",
    )


@dg.asset(
    partitions_def=by_asset_and_timeframe,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="stages",
    deps=["cmc_features"],
    group_name="strategist",
    kinds={"postgres"},
    owners=OWNERS,
    code_version=PLANS_CODE,
    metadata={"dagster/column_schema": _PLANS, "dagster/table_name": "plans"},
    description="Plans of the plan books of one symbol: which triggers are live, under which "
    "limits. A book is planned where a request waits; see docs/plans-operations.md. "
    "Materialize to plan what waits, or use its sensor.",
)
def strategy_plans(
    context: dg.AssetExecutionContext, config: Replanning, store: WorkspaceResource
) -> None:
    require_sound_run(context)
    told = _BookReports(context, store.workspace)
    for partition, books in _books_of_one(store.workspace, context.partition_keys, config).items():
        told.tell(str(partition), books, lambda book: _plan(told, config, book), _plan_rows)
    told.end()


@dg.asset(
    partitions_def=by_asset_and_timeframe,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="stages",
    deps=["strategy_plans", "cmc_features"],
    group_name="strategist",
    kinds={"numba", "postgres", "parquet"},
    owners=OWNERS,
    code_version=PLANNED_CODE,
    metadata={"dagster/column_schema": _RUNS, "dagster/table_name": "backtest_runs"},
    description="Backtests of single symbols under the plans of their plan books, with every "
    "blocked entry and its reason. "
    "Materialize after strategy_plans; a partition says what its limits blocked.",
)
def planned_backtests(
    context: dg.AssetExecutionContext,
    config: Books,
    store: WorkspaceResource,
    simulation: SimulationResource,
) -> None:
    require_sound_run(context)
    told, chosen = _BookReports(context, store.workspace), simulation.config()
    for partition, books in _books_of_one(store.workspace, context.partition_keys, config).items():
        tf = partition.timeframe
        told.tell(
            str(partition),
            books,
            lambda book, tf=tf: told.follow(book, tf, chosen),
            lambda workspace, key, books, tf=tf: _run_rows(workspace, key, tf, books),
        )
    told.end()


@dg.asset(
    partitions_def=timeframes_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="stages",
    deps=[
        dg.AssetDep(
            "cmc_features", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("timeframe")
        )
    ],
    group_name="strategist",
    kinds={"numba", "postgres", "parquet"},
    owners=OWNERS,
    code_version=f"{PLANS_CODE}, {PLANNED_CODE}",
    metadata={"dagster/column_schema": _RUNS, "dagster/table_name": "backtest_runs"},
    description="Plans of the plan books of several symbols, and their backtests: the symbols of a "
    "book share one account. "
    "Materialize to plan and to trade what waits.",
)
def planned_portfolios(
    context: dg.AssetExecutionContext,
    config: Replanning,
    store: WorkspaceResource,
    simulation: SimulationResource,
) -> None:
    require_sound_run(context)
    told, chosen = _BookReports(context, store.workspace), simulation.config()
    known = context.instance.get_dynamic_partitions("timeframe")
    for tf in sorted(context.partition_keys, key=known.index):
        books = [
            book
            for book in books_at(store.workspace, [tf])
            if len(book.symbols) > 1 and _is_named(book, config)
        ]

        def work(book: PlanBook, tf: str = tf) -> str:
            _plan(told, config, book)
            return told.follow(book, tf, chosen)

        told.tell(
            tf,
            books,
            work,
            lambda workspace, key, books, tf=tf: _run_rows(workspace, key, tf, books),
        )
    told.end()


Rows = Callable[[Workspace, str, Sequence[PlanBook]], StoredRows]


class _BookReports(PartitionReports):
    """Works on the books of one partition after the other."""

    def __init__(self, context: dg.AssetExecutionContext, workspace: Workspace) -> None:
        super().__init__(context)
        self.workspace, self.run_id = workspace, context.run.run_id

    def tell(
        self, key: str, books: Sequence[PlanBook], work: Callable[[PlanBook], str], rows: Rows
    ) -> None:
        """Work on the books of a partition, and report its rows unless one of them failed.

        Args:
            key: of the partition.
            books: its books.
            work: what to do with each; returns why there is no result, empty where there is one.
            rows: reads what is stored of the partition.
        """
        self.add(key, lambda: self._worked(key, books, work, rows))

    def _worked(
        self, key: str, books: Sequence[PlanBook], work: Callable[[PlanBook], str], rows: Rows
    ) -> StoredRows:
        failed, empty = [], []
        for book in books:
            try:
                reason = work(book)
            except BacktestError as error:
                if of_the_environment(error):
                    raise
                failed.append(f"plan book {book.name}: {error}")
            else:
                empty += [f"plan book {book.name}: {reason}"] if reason else []
        if failed:
            raise BacktestError("; ".join(failed))
        stored = rows(self.workspace, key, books)
        why = {"why": "; ".join(empty)} if empty else {}
        return replace(stored, metadata={**stored.metadata, **why})

    def follow(self, book: PlanBook, tf: str, config: SimulationConfig) -> str:
        """Run a book under its plans; returns why there rightly is no run yet."""
        try:
            follow_book(self.workspace, book, tf, config)
        except NotEnoughBars as error:
            return str(error)
        return ""


def _plan(told: _BookReports, config: Replanning, book: PlanBook) -> str:
    """Plan a book where a request waits, what triggers one now included."""
    if config.follow_only:
        return ""
    if config.replan:
        request_replan(told.workspace, book.name, "dagster", key=f"run {told.run_id}")
    replan(told.workspace, book, dagster_run_id=told.run_id)
    return ""


def _books_of_one(
    workspace: Workspace, keys: Sequence[str], config: Books
) -> dict[Partition, list[PlanBook]]:
    """The books of one symbol by partition, those that are named where any is."""
    found: dict[Partition, list[PlanBook]] = {p: [] for p in sorted(partitions_of(keys))}
    symbols = sorted({partition.asset for partition in found})
    for book in books_at(workspace, sorted({p.timeframe for p in found}), symbols):
        for tf in book.timeframes:
            partition = Partition(book.symbols[0], tf)
            if partition in found and _is_named(book, config):
                found[partition].append(book)
    return found


def _is_named(book: PlanBook, config: Books) -> bool:
    return not config.books or book.name in config.books


def _plan_rows(workspace: Workspace, key: str, books: Sequence[PlanBook]) -> StoredRows:
    """The plans of a partition's books; without a book there is rightly none."""
    plans = {book.name: stored_plans(workspace, book) for book in books}
    about: dict[str, Any] = {"books": len(books)}
    for name, history in plans.items():
        if not history:
            about[name] = "no plan yet"
            continue
        newest = history[-1]
        about[name] = dg.MetadataValue.json(
            {
                "sequence": newest.sequence,
                "reasons": list(newest.replan_reasons),
                "effective_ts": newest.effective_ts.isoformat(),
                "valid_until": newest.valid_until.isoformat(),
                "suppressed": newest.suppressed,
            }
        )
    if not books:
        about["why"] = f"no plan book trades {key} alone; add one with `plans book add`"
    of_plans = [f"{name} {plan.plan_id}" for name, history in plans.items() for plan in history]
    return StoredRows(key, combined(*of_plans), len(of_plans), about)


def _run_rows(workspace: Workspace, key: str, tf: str, books: Sequence[PlanBook]) -> StoredRows:
    """The current runs of a partition's books at a timeframe."""
    runs = current_runs_of_books(workspace, [book.name for book in books], tf)
    about: dict[str, Any] = {"books": len(books)}
    for run in runs:
        about[run["book"]] = dg.MetadataValue.json(
            {
                "run_id": str(run["run_id"]),
                "total_return": run["total_return"],
                "sharpe": run["sharpe"],
                "trades": run["results"]["trades"],
                "limit_enforcement": run["results"]["limit_enforcement"],
                "plan_log": run["results"]["plan_log"],
            }
        )
    if not books:
        about["why"] = f"no plan book trades at {key}; add one with `plans book add`"
    version = combined(*(str(run["run_id"]) for run in runs))
    return StoredRows(key, version, len(runs), about)
