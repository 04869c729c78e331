"""No check of the tables, and no list of runs, grows faster than what is stored.

Rows that a plan goes through are counted, not seconds: a plan that loops over a table for each row
of another goes through twenty-five times as many of a store five times as large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.ranking.leaderboard import READ, publish_leaderboard
from backtest_pipeline.pipeline.runs.summary import TABLE_METRICS
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.pipeline.stages.bars import BarsStage
from backtest_pipeline.pipeline.stages.features import FeaturesStage
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import roll_up
from backtest_pipeline.pipeline.stages.signals import SignalsStage
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_stage import WalkForwardStage
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.statistics import analyze_keys
from backtest_pipeline.storage.run_tables.block_events import BlockFilter, count_blocks
from backtest_pipeline.storage.run_tables.leaderboard import board_faults, board_rows, runs_to_rank
from backtest_pipeline.storage.run_tables.portfolios import (
    current_portfolio_figures,
    current_portfolios,
    portfolio_figures,
)
from backtest_pipeline.storage.run_tables.recorded_runs import (
    figures_by_directory,
    runs_by_directory,
)
from backtest_pipeline.storage.run_tables.retention import capture_aged, delete_aged, referred_to
from backtest_pipeline.storage.run_tables.run_figures import current_figures, figures_by_partition
from backtest_pipeline.storage.run_tables.run_search import RunFilter, list_runs
from backtest_pipeline.storage.run_tables.runs import current_runs, runs_configured
from backtest_pipeline.storage.run_tables.trials import deflated_before
from backtest_pipeline.storage.run_tables.walk_forward import (
    current_walk_forwards,
    walk_forward_figures,
)
from backtest_pipeline.storage.tables.table_checks import CHECKED, violations
from backtest_pipeline_tests.pipeline.markets import PARTITIONS, refresh, whole
from backtest_pipeline_tests.pipeline.walking_process import walk
from backtest_pipeline_tests.sql import column, execute_sql

# Those that others refer to first.
CLONED = (
    *("dim_assets", "dataset_versions", "cmc_features", "signals", "trials", "backtest_runs"),
    *("backtest_metrics", "backtest_trades", "block_events", "walk_forward_folds"),
    *("walk_forward_runs", "portfolio_weights", "leaderboard"),
)
AS_OTHERS = {
    "id": "id + {n} * 1000000",
    "symbol": "symbol || '-{n}'",
    "run_id": "md5(run_id::text || {n})::uuid",
    "trial_id": "md5(trial_id::text || {n})::uuid",
    "rank": "rank + {n} * 1000000",
}
# Portfolios and boards do not become more: they hold more.
SHARED = {"portfolio_weights": "run_id"}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
QUESTIONS: dict[str, Callable[[sa.Connection], object]] = {
    **{name: partial(violations, dataset=name) for name in CHECKED},
    "current runs": current_runs,
    "figures of current runs": lambda c: current_figures(c, TABLE_METRICS),
    "artifacts named": referred_to,
    "runs to delete": lambda c: capture_aged(c, LONG_AGO),
    "rows to delete": lambda c: delete_aged(c, LONG_AGO),
    "runs of a board": lambda c: runs_to_rank(c, READ),
    "rows of a board": lambda c: board_rows(c, str(c.scalar(sa.text(_BOARD)))),
    "faults of a board": board_faults,
    "figures of runs": lambda c: figures_by_directory(c, list(runs_by_directory(c))),
    "figures of portfolios": portfolio_figures,
    "figures by partition": lambda c: figures_by_partition(
        c, "backtests", timeframes=["1D"], symbols=_symbols(c)
    ),
    "walk-forwards": lambda c: current_walk_forwards(c, timeframes=["1D"], symbols=_symbols(c)),
    "figures of walk-forwards": lambda c: walk_forward_figures(
        c, TABLE_METRICS, timeframes=["1D"], symbols=_symbols(c)
    ),
    "portfolios": lambda c: current_portfolios(c, ["1D"]),
    "figures of current portfolios": lambda c: current_portfolio_figures(c, ["1D"]),
    "runs with a text": lambda c: list_runs(c, RunFilter(text="nowhere"), 50),
    "runs of nobody": lambda c: list_runs(c, RunFilter(requested_by="nobody"), 50),
    "blocked entries": lambda c: count_blocks(c, BlockFilter(), 50),
    "runs of a configuration": lambda c: runs_configured(c, "1D", ["none"], "none"),
    "deflated runs": lambda c: deflated_before(c, c.scalars(sa.text(_SOME_RUNS)).all()),
}
_BOARD = "SELECT board_id FROM leaderboards"
_SOME_RUNS = "SELECT run_id FROM backtest_runs WHERE is_current ORDER BY run_id LIMIT 10"


def _symbols(connection: sa.Connection) -> list[str]:
    return list(connection.scalars(sa.text("SELECT symbol FROM dim_assets")).all())


def cloned(database: Database, n: int) -> None:
    """Add what is stored of the real assets once more, under other names."""
    for table in CLONED:
        columns: list[str] = column(database, _COLUMNS, t=table)
        others = {k: v for k, v in AS_OTHERS.items() if k != SHARED.get(table)}
        values = ", ".join(others.get(name, name).format(n=n) for name in columns)
        by_symbol = "symbol" in columns and "id" not in columns
        mine = "id < 1000000" if "id" in columns else _OF_ORIGINALS
        mine = "symbol !~ '-[0-9]+$'" if by_symbol else mine
        execute_sql(database, f"ALTER TABLE {table} DISABLE TRIGGER USER")
        execute_sql(
            database,
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE {mine}",
        )


_COLUMNS = """
    SELECT attname::text FROM pg_attribute WHERE attrelid = CAST(:t AS regclass)
    AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"""
_OF_ORIGINALS = "run_id IN (SELECT run_id FROM backtest_runs WHERE id < 1000000)"


@contextmanager
def explained(database: Database) -> Iterator[list[int]]:
    """The rows that the plan of each statement of the block goes through."""
    found: list[int] = []

    def explain(connection: Any, _cursor: Any, query: str, bound: Any, *_: Any) -> None:
        if not query.lstrip().upper().startswith("EXPLAIN"):
            plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", bound)
            found.append(_rows_of(plan.scalar_one()[0]["Plan"]))

    event.listen(database.engine, "before_cursor_execute", explain)
    yield found
    event.remove(database.engine, "before_cursor_execute", explain)


def _rows_of(plan: dict[str, Any]) -> int:
    """Rows that came out of a node or were dropped by it, over all its loops, and of its parts."""
    dropped = sum(plan.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Join Filter"))
    own = int((plan["Actual Rows"] + dropped) * plan["Actual Loops"])
    return own + sum(_rows_of(part) for part in plan.get("Plans", ()))


def work(database: Database) -> dict[str, int]:
    """The rows that each question goes through."""
    for stage in (BarsStage, FeaturesStage, SignalsStage, BacktestsStage, WalkForwardStage):
        analyze_keys(database, stage.tables)
    found = {}
    for name, ask in QUESTIONS.items():
        with database.begin() as connection:
            undone = connection.begin_nested()
            with explained(database) as per_statement:
                ask(connection)
            undone.rollback()
        found[name] = sum(per_statement)
    return found


@pytest.mark.slow
def test_five_times_the_store_is_five_times_the_work(workspace: Workspace) -> None:
    refresh(workspace, whole(), PARTITIONS)
    assert not walk(workspace, [Partition("S-ALPHA", "1D")]).failed
    assert roll_up(workspace, "1D", RollupConfig()) > 5
    assert publish_leaderboard(workspace)
    for n in range(1, 8):
        cloned(workspace.database, n)
    once = work(workspace.database)
    for n in range(8, 40):
        cloned(workspace.database, n)
    five_times = work(workspace.database)
    with workspace.database.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM dim_assets")) == 3 * 40
    faster = {
        name: (n, five_times[name])
        for name, n in once.items()
        if five_times[name] > 7 * max(n, 1000)
    }
    assert faster == {}
