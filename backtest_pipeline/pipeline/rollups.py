"""Portfolio rollups: per timeframe, each strategy over all assets in one equal-weight book."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.identity import RUN_CODE, canonical_json, hash_of
from backtest_pipeline.pipeline.summary import Run, Summary, rounded
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.svg import Chart, Line
from backtest_pipeline.research.portfolio import PortfolioResult, equal_weight_portfolio
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.equity import drawdowns
from backtest_pipeline.simulation.metrics import equity_metrics
from backtest_pipeline.storage.portfolios import publish_portfolios, stored_portfolio_ids
from backtest_pipeline.storage.provenance import code_version
from backtest_pipeline.storage.runs import current_runs

_NAMESPACE = uuid.UUID("0c1f2c6e-8d1c-5d6e-8b7a-3a4f5e6d7c8b")
SCHEME = "equal_weight"


@dataclass(frozen=True)
class RollupConfig:
    """How portfolios are formed.

    Attributes:
        costs: what moving capital at a rebalance costs, fee and slippage on the moved amount.
        initial_cash: starting capital.
    """

    costs: CostModel = field(default_factory=CostModel)
    initial_cash: float = 10_000.0


@dataclass(frozen=True)
class Rollup:
    """One strategy's portfolio at one timeframe, and what it was made from."""

    timeframe: str
    runs: Sequence[Run]
    ts: np.ndarray
    portfolio: PortfolioResult
    benchmark: PortfolioResult

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the equity against the same portfolio of buy and hold."""
        panel = Panel(
            timeframe(self.timeframe), ("portfolio",), np.array([0, len(self.ts)]), self.ts, {}
        )
        found = equity_metrics(
            panel.ts, panel.offsets, self.portfolio.equity[None, :], self.benchmark.equity
        )
        return {name: float(values[0]) for name, values in found.items()}


def roll_up(workspace: Workspace, tf: str, config: RollupConfig) -> list[Rollup]:
    """The portfolios of a timeframe, one per signal that has current runs; none without runs."""
    with workspace.database.begin() as connection:
        runs = current_runs(connection, timeframes=[tf])
    rollups = []
    for _, group in groupby(sorted(runs, key=itemgetter("signal_id")), itemgetter("signal_id")):
        members = list(group)
        ts, curves, benchmarks = _curves(workspace, members)
        rate = (config.costs.fee_bps + config.costs.slippage_bps) / 1e4
        rollups.append(
            Rollup(
                tf,
                members,
                ts,
                equal_weight_portfolio(curves, ts, config.initial_cash, rate),
                equal_weight_portfolio(benchmarks, ts, config.initial_cash, rate),
            )
        )
    return rollups


def _curves(
    workspace: Workspace, members: Sequence[Run]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equity and benchmark of each run on the union of their stamps, `(n_runs, n_times)`."""
    own = _series(workspace, members, "equity", "run_id", [str(run["run_id"]) for run in members])
    held = _series(workspace, members, "benchmark", "asset", [run["symbol"] for run in members])
    ts = np.union1d(own.ts, held.ts)
    return ts, _placed(own, ts, len(members)), _placed(held, ts, len(members))


class _Series(NamedTuple):
    """A value at each stamp of each run; `run` is its position among the members."""

    run: np.ndarray
    ts: np.ndarray
    value: np.ndarray


def _series(
    workspace: Workspace, members: Sequence[Run], what: str, key: str, keys: Sequence[str]
) -> _Series:
    """The column `what` of the file of that name; `keys` are the members' values of `key`."""
    by_uri: dict[str, list[str]] = {}
    for run, name in zip(members, keys, strict=True):
        by_uri.setdefault(run["artifact_uri"], []).append(name)
    # An older file may still hold assets whose current runs are in another one.
    tables = [
        workspace.artifacts.read_table(
            uri, f"{what}.parquet", [key, "ts", what], [(key, "in", found)]
        )
        for uri, found in sorted(by_uri.items())
    ]
    table = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    names = table[key].combine_chunks()
    run_of = {name: i for i, name in enumerate(keys)}
    of_code = np.array([run_of.get(name, -1) for name in names.dictionary.to_pylist()])
    return _Series(
        of_code[names.indices.to_numpy()],
        table["ts"].cast(pa.int64()).to_numpy(),
        table[what].to_numpy(),
    )


def _placed(series: _Series, ts: np.ndarray, n_runs: int) -> np.ndarray:
    values = np.full((n_runs, len(ts)), np.nan)
    values[series.run, np.searchsorted(ts, series.ts)] = series.value
    return values


def store_rollups(
    workspace: Workspace, rollups: Iterable[Rollup], config: RollupConfig
) -> list[dict[str, Any]]:
    """Publish portfolios; what is stored under the same members and code is kept.

    Returns:
        One summary per portfolio: signal, assets, metrics, whether it is new.
    """
    summaries = []
    for rollup in rollups:
        row = _row(rollup, config)
        with workspace.database.begin() as connection:
            known = stored_portfolio_ids(connection, [row["run_id"]])
        if row["run_id"] not in known:
            workspace.artifacts.put_directory(
                row["artifact_uri"],
                {"equity.parquet": _equity_table(rollup)},
                {"timeframe": rollup.timeframe, "signal": row["signal_name"], "scheme": SCHEME},
            )
            with workspace.database.arrow() as connection, connection.cursor() as cursor:
                publish_portfolios(cursor, _table(row), _weights(rollup, row["run_id"]))
        summaries.append({**row, "metrics": rollup.metrics, "is_new": row["run_id"] not in known})
    return summaries


def _row(rollup: Rollup, config: RollupConfig) -> dict[str, Any]:
    first = rollup.runs[0]
    members = sorted(run["run_id"] for run in rollup.runs)
    about = {
        "scheme": SCHEME,
        "rebalance": "monthly",
        "cost_bps": config.costs.fee_bps + config.costs.slippage_bps,
        "initial_cash": config.initial_cash,
    }
    code = code_version(*RUN_CODE, "research")
    identity = [rollup.timeframe, first["signal_name"], about, [str(m) for m in members], code]
    run_id = uuid.uuid5(_NAMESPACE, canonical_json(identity))
    equity = np.ascontiguousarray(rollup.portfolio.equity, dtype="<f8")
    return {
        "run_id": run_id,
        "tf": rollup.timeframe,
        "signal_id": first["signal_id"],
        "signal_name": first["signal_name"],
        "scheme": SCHEME,
        "n_assets": len(members),
        "first_ts": utc_index(rollup.ts[:1])[0].to_pydatetime(),
        "last_ts": utc_index(rollup.ts[-1:])[0].to_pydatetime(),
        "completed_at": datetime.now(UTC),
        "is_current": True,
        "config": canonical_json(about),
        "metrics": canonical_json(
            {
                **{n: None if np.isnan(v) else v for n, v in rollup.metrics.items()},
                "rebalance_cost": rollup.portfolio.cost,
                "mean_member_sharpe": _mean_sharpe(rollup.runs),
            }
        ),
        "member_run_ids": members,
        "code_version": code,
        "result_fingerprint": hashlib.sha256(equity.tobytes()).hexdigest(),
        "artifact_uri": f"portfolios/{rollup.timeframe}/{hash_of(str(run_id))}",
    }


def _table(row: Mapping[str, Any]) -> pa.Table:
    members = [str(member) for member in row["member_run_ids"]]
    return pa.Table.from_pylist([{**row, "run_id": str(row["run_id"]), "member_run_ids": members}])


def _mean_sharpe(runs: Sequence[Run]) -> float | None:
    known = [run["sharpe"] for run in runs if run["sharpe"] is not None]
    return float(np.mean(known)) if known else None


def _equity_table(rollup: Rollup) -> pa.Table:
    equity = rollup.portfolio.equity
    return pa.table(
        {
            "ts": pa.array(rollup.ts, pa.timestamp("us", "UTC")),
            "equity": equity,
            "drawdown": drawdowns(equity[None, :], np.array([0, len(equity)]))[0],
            "benchmark": rollup.benchmark.equity,
        }
    )


def _weights(rollup: Rollup, run_id: uuid.UUID) -> pa.Table:
    portfolio = rollup.portfolio
    when, asset = np.nonzero(portfolio.weights)
    ids = np.array([run["id"] for run in rollup.runs])
    return pa.table(
        {
            "run_id": [str(run_id)] * len(when),
            "ts": pa.array(rollup.ts[portfolio.rebalance_rows[when]], pa.timestamp("us", "UTC")),
            "id": ids[asset],
            "weight": portfolio.weights[when, asset],
        }
    )


def rollups_summary(rollups: Sequence[Rollup], stored: Sequence[Mapping[str, Any]]) -> Summary:
    """A table of portfolios, best Sharpe first, and the equity of the best."""
    ranked = sorted(
        zip(rollups, stored, strict=True),
        key=lambda pair: -np.nan_to_num(pair[1]["metrics"]["sharpe"], nan=-np.inf),
    )
    rows = [
        {
            "timeframe": row["tf"],
            "signal": row["signal_name"],
            "assets": row["n_assets"],
            **{
                name: rounded(row["metrics"][name])
                for name in ("total_return", "benchmark_return", "sharpe", "max_drawdown")
            },
        }
        for _, row in ranked
    ]
    chart = None
    if ranked:
        best, row = ranked[0]
        index = utc_index(best.ts)
        lines = (
            Line("buy and hold", pd.Series(best.benchmark.equity, index)),
            Line(row["signal_name"], pd.Series(best.portfolio.equity, index)),
        )
        chart = Chart(lines, f"{row['n_assets']} assets, {row['tf']}, equal weight")
    return Summary({"portfolios": len(rows)}, {"portfolios_by_sharpe": rows}, chart)
