"""The assets of plan books: `strategy_plans`, and the runs that follow the plans."""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs import stored_events
from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.partitions import (
    by_asset_and_timeframe,
    partitions_of,
    require_sound_run,
)
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.defs.stored_events import StoredRows
from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.planning.books import books_at, request_replan, stored_plans
from backtest_pipeline.pipeline.planning.due_replans import SENSOR, note_triggers_of
from backtest_pipeline.pipeline.planning.replans import replan
from backtest_pipeline.pipeline.stage import of_the_environment
from backtest_pipeline.pipeline.versions import PLANS_CODE
from backtest_pipeline.pipeline.workspace import Workspace
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


class Replanning(dg.Config):
    """Which plan books, and whether to plan them where nothing asks for that."""

    books: list[str] = Field(
        default=[], description="names of plan books; empty for all of the partition"
    )
    replan: bool = Field(
        default=False, description="plan again even where nothing has triggered it"
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
    "limits. A book is planned where a request waits; see docs/plans-operations.md.",
)
def strategy_plans(
    context: dg.AssetExecutionContext, config: Replanning, store: WorkspaceResource
) -> None:
    require_sound_run(context)
    workspace, planning = store.workspace, _Planning(context, config, store.workspace)
    for partition, books in _books_of_one(workspace, context.partition_keys, config.books).items():
        planning.tell(str(partition), books, _plan_rows)
    planning.end()


class _Planning:
    """Plans the books of one partition after the other, and tells Dagster what is stored."""

    def __init__(
        self, context: dg.AssetExecutionContext, config: Replanning, workspace: Workspace
    ) -> None:
        self._context, self._config, self._workspace = context, config, workspace
        self._step = context.get_step_execution_context()
        lineage = stored_events.lineage_of(self._step)
        self._tags = stored_events.provenance(context.instance, lineage)
        self._failed = stored_events.failed_so_far(context.instance, context.run.run_id)
        self._why: dict[str, str] = {}
        self._done: set[str] = set()
        self._n_stored = 0

    def tell(
        self,
        key: str,
        books: Sequence[PlanBook],
        rows: Callable[[Workspace, str, Sequence[PlanBook]], StoredRows],
    ) -> None:
        """Plan the books of a partition, and report its rows; what fails is told of at the end."""
        if key in self._failed:
            return
        for book in books:
            if book.name not in self._done:
                self._plan(book)
        reasons = [self._why[book.name] for book in books if book.name in self._why]
        if reasons:
            self._failed[key] = f"{self._context.asset_key.path[-1]}: {'; '.join(reasons)}"
            return
        event = stored_events.materialization(
            self._context.asset_key, rows(self._workspace, key, books), self._tags
        )
        stored_events.report(self._step, [event])
        self._n_stored += 1

    def _plan(self, book: PlanBook) -> None:
        self._done.add(book.name)
        run_id = self._context.run.run_id
        try:
            note_triggers_of(self._workspace.database, book, SENSOR)
            if self._config.replan:
                request_replan(self._workspace, book.name, "dagster", key=f"run {run_id}")
            replan(self._workspace, book, dagster_run_id=run_id)
        except BacktestError as error:
            if of_the_environment(error):
                raise
            self._why[book.name] = f"plan book {book.name}: {error}"

    def end(self) -> None:
        """Fail the run if a partition failed, in its last step or where nothing is stored."""
        stored_events.observe(self._step, {"partitions": self._n_stored}, self._failed)
        if self._failed and (stored_events.is_last(self._step) or not self._n_stored):
            raise stored_events.failure(self._failed, self._n_stored)


def _books_of_one(
    workspace: Workspace, keys: Sequence[str], names: Sequence[str]
) -> dict[Partition, list[PlanBook]]:
    """The books of one symbol by partition, those of these names where any is given."""
    found: dict[Partition, list[PlanBook]] = {p: [] for p in sorted(partitions_of(keys))}
    symbols = sorted({partition.asset for partition in found})
    for book in books_at(workspace, sorted({p.timeframe for p in found}), symbols):
        for tf in book.timeframes:
            partition = Partition(book.symbols[0], tf)
            if partition in found and (not names or book.name in names):
                found[partition].append(book)
    return found


def _plan_rows(workspace: Workspace, key: str, books: Sequence[PlanBook]) -> StoredRows:
    """The plans of a partition's books; without a book there is rightly none."""
    plans = {book.name: stored_plans(workspace, book) for book in books}
    about: dict[str, Any] = {"books": len(books)}
    for name, history in plans.items():
        if history:
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
    version = combined(*(f"{name} {p.plan_id}" for name, history in plans.items() for p in history))
    return StoredRows(key, version, sum(map(len, plans.values())), about)
