"""Which timeframes a store knows, and which of them every refresh computes."""

from __future__ import annotations

from collections.abc import Iterable

from backtest_pipeline.market.errors import InvalidInput, RowsRefused
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.timeframes import (
    TimeframeRow,
    add_timeframe,
    refreshed_timeframes,
    remove_timeframe,
    timeframe_rows,
)


def project_timeframes(database: Database, named: Iterable[str]) -> tuple[str, ...]:
    """The timeframes that a refresh of everything computes, by nominal length.

    Args:
        database: the database of the store.
        named: those of the setting BACKTEST_TIMEFRAMES.
    """

    def read() -> tuple[str, ...]:
        with database.begin() as connection:
            return refreshed_timeframes(connection, named)

    return database.retrying("project_timeframes", read)


@retried
def known_timeframes(workspace: Workspace) -> list[TimeframeRow]:
    """The rows of `dim_timeframe`, by nominal length."""
    with workspace.database.begin() as connection:
        return timeframe_rows(connection)


@retried
def add(workspace: Workspace, name: str) -> str:
    """Have every refresh compute a timeframe; returns its name as it is spelled here.

    Raises:
        UnknownName: for a name that is no definition.
        InvalidInput: where the store has a row that contradicts the name.
    """
    added = timeframe(name).name
    with workspace.database.begin() as connection:
        add_timeframe(connection, added)
    return added


@retried
def remove(workspace: Workspace, name: str, named: Iterable[str]) -> str:
    """Take a timeframe out of refreshes; returns its name as it is spelled here.

    Args:
        workspace: the open store.
        name: the timeframe.
        named: those of the setting BACKTEST_TIMEFRAMES.

    Raises:
        UnknownName: for a name that is no definition, or that the store does not know.
        InvalidInput: where the setting names it, or results of it are stored.
    """
    removed = timeframe(name).name
    if removed in named:
        raise InvalidInput(
            f"{removed} is one of BACKTEST_TIMEFRAMES; take it out of the setting instead"
        )
    try:
        with workspace.database.begin() as connection:
            remove_timeframe(connection, removed)
    except RowsRefused as error:
        raise InvalidInput(
            f"{removed} cannot be removed: bars or results of it are stored"
        ) from error
    return removed
