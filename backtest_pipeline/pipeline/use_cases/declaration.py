"""Declares a walk-forward before the first trial of its strategy."""

from __future__ import annotations

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.ranking.ledger import declaration_of
from backtest_pipeline.pipeline.results import Declaration
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.stages.walk_forward.verdicts import judge_again
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.declarations import (
    declared_at,
    first_trial,
    insert_declaration,
)
from backtest_pipeline.storage.tables.dimensions import asset_ids, known_symbols
from backtest_pipeline.storage.tables.timeframes import declare_timeframes
from backtest_pipeline.strategies.grid import ParameterSpace


@retried
def declare_walk_forward(
    workspace: Workspace,
    partition: Partition,
    space: ParameterSpace,
    plan: WalkForwardPlan,
    terms: RunTerms,
) -> Declaration:
    """Declare a walk-forward; the same one again is the first declaration.

    Raises:
        InvalidInput: where the ledger has trials of the strategy on the partition.
    """
    asset, tf = partition
    strategy = space.strategy.name
    values = {name: list(axis) for name, axis in space.axes.items()}
    row = declaration_of(strategy, values, asset, tf, terms, plan.as_json())
    declared = row["configuration_id"]
    with workspace.database.begin() as connection:
        declare_timeframes(connection, [tf])
        known = declared_at(connection, declared)
        n, first = first_trial(connection, strategy, asset, tf)
        if first is not None and (known is None or first <= known):
            tried = "1 trial" if n == 1 else f"{n:,} trials"
            raise InvalidInput(
                f"{partition}: a walk-forward of {strategy} cannot be declared any more: the "
                f"ledger has {tried} of it there, the first of {first:%F %T} UTC, and what is "
                "declared when results are known proves nothing. Run it undeclared, judged as one "
                "of all walk-forwards there, or declare it where the strategy was never tried"
            )
        insert_declaration(connection, row)
        at = declared_at(connection, declared)
        ids = asset_ids(connection, [asset]) if asset in known_symbols(connection) else {}
    assert at is not None  # noqa: S101  (it was just declared)
    if ids:  # others that were declared there are one of more now
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            copy.lock_cells(cursor, "backtests", tf, list(ids.values()))
            judge_again(cursor, tf, [asset])
    return Declaration(
        declaration_id=declared,
        strategy=strategy,
        symbol=asset,
        timeframe=tf,
        start=terms.window.start,
        end=terms.window.end,
        params=values,
        declared_at=at,
    )
