"""Portfolio rollups: per timeframe, each strategy over all assets, and all strategies together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from threadpoolctl import threadpool_limits

from backtest_pipeline.market.errors import BacktestError, StoreOvertaken
from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.pipeline.pools.work_pool import HERE, PoolWork, done
from backtest_pipeline.pipeline.runs.summary import Run, Summary, rounded
from backtest_pipeline.pipeline.stage import of_the_environment
from backtest_pipeline.pipeline.stages.portfolio_members import Members, members_of
from backtest_pipeline.pipeline.stages.portfolio_tables import artifact_uri, files_of, rows_of
from backtest_pipeline.pipeline.stages.portfolios import (
    Portfolio,
    PortfolioPlan,
    RollupConfig,
    formed,
    planned,
)
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.report.number_formats import written
from backtest_pipeline.report.svg import Chart, Line
from backtest_pipeline.research.portfolio.diversification import correlations
from backtest_pipeline.research.portfolio.weights import SCHEMES
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.postgres.statistics import analyze_keys
from backtest_pipeline.storage.run_tables.portfolios import (
    current_portfolio_figures,
    current_portfolio_ids,
    publish_portfolios,
    retire_portfolios,
)
from backtest_pipeline.storage.run_tables.quarantine import quarantined_runs
from backtest_pipeline.storage.run_tables.run_figures import current_figures
from backtest_pipeline.storage.run_tables.runs import current_runs
from backtest_pipeline.storage.tables.dimensions import synthetic_beside_real

TABLES_OF_PORTFOLIOS = ("portfolio_runs", "portfolio_weights", "portfolio_strategy_weights")
_SHOWN = 10


@retried
def roll_up(workspace: Workspace, timeframe: str, config: RollupConfig) -> int:
    """Build the portfolios of a timeframe's current runs, and retire all others of that timeframe.

    Runs of synthetic assets make portfolios only in a store without real ones.

    Returns:
        How many were built; 0 where all of them are stored already, or there are no runs.
    """
    plans = _planned(workspace, timeframe, config, current_runs)
    planned_ids = {plan.run_id for plan in plans}
    with workspace.database.begin() as connection:
        current = current_portfolio_ids(connection, timeframe)
    if current == planned_ids:
        return 0
    if not plans:
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            retire_portfolios(cursor, timeframe)
        return 0
    # With threads, sums would depend on the number of cores; and on matrices this small the threads
    # wait for each other, which takes four times as long on busy cores.
    with threadpool_limits(1, user_api="blas"):
        portfolios = list(_formed(workspace, plans, config))
    files = files_of(portfolios)
    about = {"timeframe": timeframe, "portfolios": [str(plan.run_id) for plan in plans]}
    with workspace.database.writing() as connection, connection.cursor() as cursor:
        copy.lock_cells(cursor, "portfolios", timeframe, [0])
        workspace.artifacts.put_directory(artifact_uri(portfolios), files, about)
        publish_portfolios(cursor, rows_of(portfolios))
        # Others wait for our lock now, but one that knew newer runs may have published before us.
        again = _planned(workspace, timeframe, config, partial(current_figures, metrics=()))
        if {plan.run_id for plan in again} != planned_ids:
            raise StoreOvertaken(
                f"runs at {timeframe} were replaced while their portfolios were being built; run "
                "the rollup again"
            )
    analyze_keys(workspace.database, TABLES_OF_PORTFOLIOS)
    return len(portfolios)


def roll_up_each(
    workspace: Workspace, timeframes: Sequence[str], config: RollupConfig
) -> Iterator[tuple[str, int | BacktestError]]:
    """`roll_up` of several timeframes, side by side in the pool.

    Yields:
        Each timeframe when it is done, with how many portfolios were built, or why it failed.

    Raises:
        StoreError, ArtifactError, ConfigurationError: for problems that would affect each of them.
    """
    work = PoolWork(
        "portfolio_rollups",
        lambda timeframe: _rolled_up(config, workspace, timeframe),
        partial(_rolled_up, config),
    )
    # Of this whole process, which threads that end at different times could not set by themselves.
    with threadpool_limits(1, user_api="blas"):
        yield from done(workspace.pool if len(timeframes) > 1 else HERE, work, timeframes)


def _rolled_up(config: RollupConfig, workspace: Workspace, timeframe: str) -> int | BacktestError:
    try:
        return roll_up(workspace, timeframe, config)
    except BacktestError as error:
        if of_the_environment(error):
            raise
        return error


@retried
def stored_portfolio_ids(workspace: Workspace, timeframe: str) -> list[str]:
    """The ids of a timeframe's current portfolios, sorted."""
    with workspace.database.begin() as connection:
        return sorted(map(str, current_portfolio_ids(connection, timeframe)))


def _planned(
    workspace: Workspace, timeframe: str, config: RollupConfig, read: Callable[..., Sequence[Run]]
) -> list[PortfolioPlan]:
    with workspace.database.begin() as connection:
        runs = read(connection, timeframes=[timeframe])
        synthetic = synthetic_beside_real(connection, [run["symbol"] for run in runs])
    return planned(timeframe, [run for run in runs if run["symbol"] not in synthetic], config)


def _formed(
    workspace: Workspace, plans: Sequence[PortfolioPlan], config: RollupConfig
) -> Iterator[Portfolio]:
    """Yield the planned portfolios: each strategy's first, then those of all strategies."""
    of_strategies: list[Portfolio] = []
    for signal_id, group in groupby(plans, lambda plan: plan.signal_id):
        if signal_id is None:
            for plan in group:
                yield _of_portfolios(plan, of_strategies, config)
            continue
        own = list(group)
        members = members_of(workspace, own[0].runs)
        in_common = correlations(members.curves)
        for plan in own:
            of_strategies.append(formed(plan, members, in_common, config))
            yield of_strategies[-1]


def _of_portfolios(
    plan: PortfolioPlan, others: Sequence[Portfolio], config: RollupConfig
) -> Portfolio:
    """One portfolio of all strategies' portfolios that use the same scheme."""
    chosen = [other for other in others if other.plan.rules.scheme == plan.rules.scheme]
    ts = np.unique(np.concatenate([other.members.ts for other in chosen]))

    def on_all_stamps(values: Sequence[np.ndarray]) -> np.ndarray:
        placed = np.full((len(chosen), len(ts)), np.nan)
        for row, other, known in zip(placed, chosen, values, strict=True):
            row[np.searchsorted(ts, other.ts)] = known
        return placed

    members = Members(
        names=[other.plan.signal_name for other in chosen],
        ids=[int(other.plan.signal_id or 0) for other in chosen],
        run_ids=[str(other.plan.run_id) for other in chosen],
        sharpes=np.array([other.metrics["sharpe"] for other in chosen]),
        ts=ts,
        curves=on_all_stamps([other.result.equity for other in chosen]),
        benchmarks=on_all_stamps([other.benchmark for other in chosen]),
    )
    return formed(plan, members, correlations(members.curves), config)


@retried
def rollups_summary(workspace: Workspace, timeframes: Sequence[str]) -> Summary:
    """The current portfolios of these timeframes: by scheme, the best, and those never formed."""
    with workspace.database.begin() as connection:
        stored = current_portfolio_figures(connection, timeframes)
        quarantined = quarantined_runs(connection, timeframes=timeframes)
    ranked = sorted(
        (row for row in stored if row["metrics"]["sharpe"] is not None),
        key=lambda row: -row["metrics"]["sharpe"],
    )
    never = [
        {
            "timeframe": row["tf"],
            "strategy": row["signal_name"],
            "scheme": row["scheme"],
            "why": why,
        }
        for row in stored
        if not row["n_rebalances"] and (why := row["undefined"].get("total_return"))
    ]
    return Summary(
        {
            "portfolios": len(stored),
            "portfolios_never_formed": len(never),
            **({"runs_left_out_in_quarantine": len(quarantined)} if quarantined else {}),
        },
        {
            "portfolios_by_sharpe": [_short_row(row) for row in ranked[:_SHOWN]],
            "by_scheme": [_short_medians(row) for row in scheme_rows(stored)],
            "never_formed": never[:_SHOWN],
        },
        _chart(workspace, ranked[0]) if ranked else None,
    )


def scheme_rows(stored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One table row per scheme: number of portfolios, and the medians of their metrics.

    Args:
        stored: rows of `storage.run_tables.portfolios.current_portfolio_figures`.
    """
    names = ("sharpe", "diversification_benefit", "effective_bets", "max_drawdown", "mean_turnover")
    table_rows = []
    for scheme in SCHEMES:
        of_scheme = [row for row in stored if row["scheme"] == scheme and row["n_rebalances"]]
        if of_scheme:
            figures = {name: [row["metrics"][name] for row in of_scheme] for name in names}
            medians = {
                name: rounded(median(known))
                if (known := [v for v in values if v is not None])
                else None
                for name, values in figures.items()
            }
            table_rows.append({"scheme": scheme, "portfolios": len(of_scheme), **medians})
    return table_rows


def _short_row(stored: Mapping[str, Any]) -> dict[str, str]:
    """A portfolio in the five columns that Dagster's pages show uncut, as text."""
    metrics = stored["metrics"]
    return {
        "portfolio": f"{stored['signal_name']} {stored['scheme']} {stored['tf']}",
        "Sharpe": written(metrics["sharpe"], "ratio"),
        "return": written(metrics["total_return"], "percent", signed=True),
        "drawdown": written(metrics["max_drawdown"], "percent"),
        "diversification": written(metrics["diversification_benefit"], "ratio"),
    }


def _short_medians(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "scheme": row["scheme"],
        "Sharpe": written(row["sharpe"], "ratio"),
        "drawdown": written(row["max_drawdown"], "percent"),
        "effective bets": written(row["effective_bets"], "number"),
        "portfolios": f"{row['portfolios']:,}",
    }


def _chart(workspace: Workspace, stored: Mapping[str, Any]) -> Chart:
    table = workspace.artifacts.read_table(
        stored["artifact_uri"],
        "equity.parquet",
        ["ts", "equity", "benchmark"],
        [("run_id", "==", str(stored["run_id"]))],
    )
    index = utc_index(table["ts"].cast(pa.int64()).to_numpy())
    lines = (
        Line("buy and hold", pd.Series(table["benchmark"].to_numpy(), index)),
        Line(stored["signal_name"], pd.Series(table["equity"].to_numpy(), index)),
    )
    return Chart(lines, f"{stored['n_members']} members, {stored['tf']}, {stored['scheme']}")
