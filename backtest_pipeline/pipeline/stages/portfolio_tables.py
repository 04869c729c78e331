"""Portfolios as database rows and Parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from backtest_pipeline.pipeline.runs.identity import (
    canonical_json,
    hash_of,
    snapshot_id_of,
)
from backtest_pipeline.pipeline.stages.portfolio_deflation import portfolios_deflated
from backtest_pipeline.pipeline.stages.portfolios import ENGINE, ENGINE_VERSION, Portfolio
from backtest_pipeline.pipeline.versions import PORTFOLIO_CODE
from backtest_pipeline.simulation.metrics.equity import drawdowns
from backtest_pipeline.storage.run_tables.portfolios import PortfolioTables
from backtest_pipeline.storage.tables.environment import environment_hash

_STAMP = pa.timestamp("us", "UTC")


def artifact_uri(portfolios: Sequence[Portfolio]) -> str:
    """The artifact directory of one timeframe's portfolios, named by a hash of their ids."""
    ids = [str(portfolio.plan.run_id) for portfolio in portfolios]
    return f"portfolios/{portfolios[0].plan.timeframe}/{hash_of(ids)}"


def rows_of(
    portfolios: Sequence[Portfolio], *, current: bool = True, others: int = 0
) -> PortfolioTables:
    """The portfolios as rows for Postgres.

    Args:
        portfolios: of one timeframe.
        current: whether they are the timeframe's rollup, or were requested on demand.
        others: number of further portfolios that were tried.
    """
    return PortfolioTables(
        _runs(portfolios, current, others),
        _stacked([p for p in portfolios if p.plan.signal_id is not None], _weights("id")),
        _stacked([p for p in portfolios if p.plan.signal_id is None], _weights("signal_id")),
    )


def files_of(portfolios: Sequence[Portfolio]) -> dict[str, pa.Table]:
    """The portfolios as Parquet tables, by file name."""
    # A strategy's portfolios hold the same runs under each scheme: correlations are stored once.
    unlike = {(p.plan.signal_name, id(p.correlations)): p for p in portfolios}
    return {
        "equity.parquet": _stacked(portfolios, _equity),
        "rebalances.parquet": _stacked(portfolios, _rebalances),
        "risk_contributions.parquet": _stacked(portfolios, _risk_contributions),
        "correlations.parquet": pa.concat_tables(map(_correlations, unlike.values())),
    }


def _stacked(
    portfolios: Sequence[Portfolio], table_of: Callable[[Portfolio], pa.Table]
) -> pa.Table:
    """The portfolios' tables concatenated, with the column `run_id` in front."""
    tables = []
    for portfolio in portfolios:
        table = table_of(portfolio)
        ids = pa.repeat(str(portfolio.plan.run_id), table.num_rows)
        tables.append(table.add_column(0, "run_id", ids))
    return pa.concat_tables(tables) if tables else pa.table({})


def _runs(portfolios: Sequence[Portfolio], current: bool, others: int) -> pa.Table:
    uri = artifact_uri(portfolios)
    rows = []
    for portfolio, (deflated, why_not) in zip(
        portfolios, portfolios_deflated(portfolios, others), strict=True
    ):
        plan, result = portfolio.plan, portfolio.result
        metrics = {**portfolio.metrics, **deflated}
        versions = {k: v for run in plan.runs for k, v in run["dataset_version_ids"].items()}
        stamps = portfolio.ts if len(portfolio.ts) else portfolio.members.ts
        left_out = {reason: int(counts.sum()) for reason, counts in result.left_out.items()}
        rows.append(
            {
                "run_id": str(plan.run_id),
                "tf": plan.timeframe,
                "signal_id": plan.signal_id,
                "signal_name": plan.signal_name,
                "scheme": plan.rules.scheme,
                "n_members": len(portfolio.members.names),
                "n_rebalances": len(result.rebalance_rows),
                "first_ts": int(stamps[0]),
                "last_ts": int(stamps[-1]),
                "completed_at": datetime.now(UTC),
                "is_current": current,
                "config": canonical_json(plan.about),
                "metrics": canonical_json(
                    {k: None if np.isnan(v) else v for k, v in metrics.items()}
                ),
                "undefined": canonical_json({**why_not, **portfolio.undefined}),
                "left_out": canonical_json(left_out),
                "member_run_ids": list(portfolio.members.run_ids),
                "snapshot_id": snapshot_id_of(versions),
                "dataset_version_ids": canonical_json(versions),
                "code_version": PORTFOLIO_CODE,
                "config_hash": hash_of([plan.timeframe, plan.signal_name, dict(plan.about)]),
                "environment_hash": environment_hash(),
                "engine": ENGINE,
                "engine_version": ENGINE_VERSION,
                "seed": 0,
                "result_fingerprint": _fingerprint(portfolio),
                "artifact_uri": uri,
            }
        )
    table = pa.Table.from_pylist(rows)
    for name in ("first_ts", "last_ts"):
        column = table[name].cast(_STAMP)
        table = table.set_column(table.column_names.index(name), name, column)
    # Arrow infers no type for a column of NULLs alone.
    position = table.column_names.index("signal_id")
    return table.set_column(position, "signal_id", table["signal_id"].cast(pa.int32()))


def _fingerprint(portfolio: Portfolio) -> str:
    """The sha256 over stamps, weights and equity, in canonical bytes."""
    digest = hashlib.sha256()
    result = portfolio.result
    digest.update(np.ascontiguousarray(portfolio.ts, "<i8").tobytes())
    digest.update(np.ascontiguousarray(result.rebalance_rows, "<i8").tobytes())
    digest.update(np.ascontiguousarray(result.weights, "<f8").tobytes())
    digest.update(np.ascontiguousarray(result.equity, "<f8").tobytes())
    return digest.hexdigest()


def _weights(key: str) -> Callable[[Portfolio], pa.Table]:
    def weights(portfolio: Portfolio) -> pa.Table:
        result = portfolio.result
        when, member = np.nonzero(result.weights)
        return pa.table(
            {
                "ts": pa.array(portfolio.ts[result.rebalance_rows[when]], _STAMP),
                key: pa.array(np.array(portfolio.members.ids)[member], pa.int32()),
                "weight": result.weights[when, member],
            }
        )

    return weights


def _equity(portfolio: Portfolio) -> pa.Table:
    equity = portfolio.result.equity
    return pa.table(
        {
            "ts": pa.array(portfolio.ts, _STAMP),
            "equity": equity,
            "drawdown": drawdowns(equity[None, :], np.array([0, len(equity)]))[0],
            "benchmark": portfolio.benchmark,
        }
    )


def _rebalances(portfolio: Portfolio) -> pa.Table:
    result = portfolio.result
    return pa.table(
        {
            "ts": pa.array(portfolio.ts[result.rebalance_rows], _STAMP),
            "n_held": np.count_nonzero(result.weights, axis=1),
            "cash": np.maximum(1.0 - result.weights.sum(axis=1), 0.0),
            "turnover": result.turnover,
            **result.left_out,
        }
    )


def _risk_contributions(portfolio: Portfolio) -> pa.Table:
    risk = portfolio.diversification
    parts = risk.risk_contributions
    unknown = np.isnan(parts)
    return pa.table(
        {
            "member": pa.array(list(portfolio.members.names), pa.string()),
            "contribution": pa.array(parts, mask=unknown),
            "share": pa.array(parts / risk.variance, mask=unknown),
        }
    )


def _correlations(portfolio: Portfolio) -> pa.Table:
    correlations = portfolio.correlations
    one, other = np.triu_indices(len(correlations.matrix), 1)
    names = pa.array(list(portfolio.members.names), pa.string())
    values = correlations.matrix[one, other]
    of_all = portfolio.plan.signal_id is None
    return pa.table(
        {
            "signal": pa.repeat(portfolio.plan.signal_name, len(one)),
            "scheme": pa.repeat(
                pa.scalar(portfolio.plan.rules.scheme if of_all else None, pa.string()), len(one)
            ),
            "member": names.take(pa.array(one)),
            "other": names.take(pa.array(other)),
            "correlation": pa.array(values, mask=np.isnan(values)),
            "common_returns": correlations.common[one, other],
        }
    )
