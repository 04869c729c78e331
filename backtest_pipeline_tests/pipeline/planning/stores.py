"""Stores of a few hundred daily bars, growing by days, for plan books."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.planning.books import add_book
from backtest_pipeline.pipeline.use_cases.refresh import refresh_features, require_stored
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel

SYMBOLS = ("S-ALPHA", "S-BETA")
BARS = 420


@cache
def market() -> Panel:
    """Two random walks of daily bars."""
    return daily_panel(dict.fromkeys(SYMBOLS, BARS), seed=3)


def without_last(days: int, factor: float = 1.0) -> StaticSource:
    """The market without its last days, all prices times a factor."""
    panel = market()
    known = panel.take(panel.ts <= int(panel.ts.max()) - days * DAY_US)
    prices = {name: known[name] * factor for name in ("open", "high", "low", "close")}
    scaled = Panel(
        known.timeframe, known.assets, known.offsets, known.ts, {**known.columns, **prices}
    )
    return StaticSource({"1D": scaled})


def a_refreshed_store(template: Database, root: Path) -> Iterator[Workspace]:
    """A store with the market up to five days before its end."""
    for database in database_like(template, "backtest"):
        workspace = Workspace(database, ArtifactStore(root))
        refreshed(workspace, without_last(5))
        database.close()  # so that it can be copied
        yield workspace


def a_copy(store: Workspace) -> Iterator[Workspace]:
    """A copy of a store, whose files of later days go to the same folder."""
    for copied in database_like(store.database, store.database.where.rpartition("/")[2]):
        yield replace(store, database=copied)


def refreshed(workspace: Workspace, source: StaticSource, symbols: Sequence[str] = SYMBOLS) -> None:
    """Brings bars and features of the symbols up to date with the source."""
    for report in refresh_features(workspace, source, [Partition(s, "1D") for s in symbols]):
        require_stored(report)


def added(workspace: Workspace, name: str = "core", *symbols: str, **options: object) -> PlanBook:
    """A book at 1D, of one symbol unless others are given."""
    return add_book(
        workspace,
        name,
        symbols or SYMBOLS[:1],
        ["1D"],
        user="ann",
        **options,  # pyright: ignore[reportArgumentType]
    )
