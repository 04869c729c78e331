"""Case `results_store`: finding runs among many, and removing the old ones."""

from __future__ import annotations

import statistics
import time
from datetime import date
from typing import Any

from sqlalchemy import text

from backtest_pipeline.pipeline.runs.query import list_runs
from backtest_pipeline.pipeline.runs.retention import retain
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.postgres.pages import cursor_of
from backtest_pipeline.storage.run_tables.run_search import RunFilter
from backtest_pipeline_tests.stored_runs import NEWEST, fill_runs
from bench.harness import Report, Table
from bench.store import fresh_store

_SINCE, _UNTIL = date(2025, 9, 1), date(2025, 9, 8)
FILTERS = {
    "none": RunFilter(),
    "who asked": RunFilter(requested_by="user3"),
    "who asked, nobody": RunFilter(requested_by="nobody"),
    "strategy": RunFilter(strategy="atr_breakout"),
    "strategy, none": RunFilter(strategy="none"),
    "asset": RunFilter(symbol="COIN7"),
    "timeframe": RunFilter(timeframe="1W"),
    "dates": RunFilter(completed_from=_SINCE, completed_until=_UNTIL),
    "status": RunFilter(status="failed"),
    "status, none": RunFilter(status="cancelled"),
    "text": RunFilter(text="EMA_9"),
    "text, nowhere": RunFilter(text="nowhere to be found"),
    "beginning of an id, none": RunFilter(text="deadbeef"),
    "all at once": RunFilter(
        requested_by="user3",
        strategy="ema_crossover",
        symbol="COIN7",
        timeframe="1W",
        completed_from=date(2025, 7, 1),
        completed_until=date(2025, 12, 30),
        status="completed",
        text="fast",
    ),
    "who asked and text, nowhere": RunFilter(requested_by="user3", text="nowhere to be found"),
}


def run(*, quick: bool = False) -> Report:
    """Time a page of 50 under each filter, then a retention."""
    n_runs, repeats = (2_000, 2) if quick else (100_000, 9)
    with fresh_store() as settings, open_workspace(settings) as workspace:
        with workspace.database.begin() as connection:
            fill_runs(connection, n_runs)
        before = _pages(workspace, n_runs, repeats)
        with workspace.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                text("VACUUM ANALYZE")
            )
        after = _pages(workspace, n_runs, repeats)
        retention = _retention(workspace, n_runs)
    rows = [[name, before[name], after[name]] for name in before]
    slowest = ["the slowest filter", *(max(found.values()) for found in (before, after))]
    return Report(
        "Stored results",
        f"Pages of 50 of {n_runs:,} stored runs, as the medians of {repeats} each, the wait for "
        "the transaction included: right after all were inserted at once, and after the vacuum "
        "that PostgreSQL does by itself soon after. Then those of them that are older than 90 days "
        "are removed, a small directory for every 20 runs.",
        [
            Table(
                f"Pages of 50 of {n_runs:,} runs, ms",
                ("filter", "just inserted", "vacuumed"),
                [*rows, slowest],
            ),
            retention,
        ],
    )


def _pages(workspace: Workspace, n_runs: int, repeats: int) -> dict[str, float]:
    """Milliseconds of a page under each filter."""
    with workspace.database.begin() as connection:
        deep = connection.execute(
            text("""SELECT completed_at, run_id FROM backtest_runs
                    ORDER BY completed_at DESC, run_id DESC OFFSET :n LIMIT 1"""),
            {"n": n_runs * 9 // 10},
        ).one()
    asked: dict[str, tuple[RunFilter, str | None]] = {
        f"{name}: first page": (wanted, None) for name, wanted in FILTERS.items()
    }
    cursor = cursor_of(*deep)
    asked |= {f"{name}: deep page": (FILTERS[name], cursor) for name in ("none", "text")}
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(repeats):
        for name, (wanted, after) in asked.items():
            began = time.perf_counter()
            list_runs(workspace, wanted, after=after)
            taken[name].append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(times) for name, times in taken.items()}


def _retention(workspace: Workspace, n_runs: int) -> Table:
    with workspace.database.begin() as connection:
        uris = connection.execute(text("SELECT DISTINCT artifact_uri FROM backtest_runs")).scalars()
        folders = [workspace.artifacts.root / uri for uri in uris]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "equity.parquet").write_bytes(b"equity")
        (folder / "manifest.json").write_bytes(b"{}")
    rows: list[list[Any]] = []
    for what, dry_run in (("dry run", True), ("removal", False), ("nothing left to remove", False)):
        began = time.perf_counter()
        report = retain(workspace, days=90, now=NEWEST, dry_run=dry_run)
        files = sum(removed.files for removed in report.files.values())
        rows.append([what, report.rows["runs"], files, time.perf_counter() - began])
    title = f"Retention of 90 of 200 days, {n_runs:,} runs"
    return Table(title, ("work", "runs", "files", "seconds"), rows)
