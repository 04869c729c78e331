"""Reads what the report of a portfolio shows; what cannot be read is said in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import ArtifactCorrupt, ResultPathMissing, RunNotFound
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.report.number_formats import day
from backtest_pipeline.report.run_report.contents import Holdings, ReportedRun, RunSeries
from backtest_pipeline.storage.run_tables.portfolios import stored_portfolio, stored_weights

_UNREADABLE = (ArtifactCorrupt, ResultPathMissing)
_IN_FULL = ("dataset_version_ids", "member_run_ids", "snapshot_id", "result_fingerprint")


@dataclass
class _PortfolioInputs:
    """A portfolio's row and files, and what of these could not be read."""

    workspace: Workspace
    row: Mapping[str, Any]
    missing: list[str] = field(default_factory=list)

    def table(
        self, name: str, filters: Sequence[tuple[str, str, object]], without: str
    ) -> pa.Table | None:
        """Rows of a file; None, with the reason, where it is damaged or gone."""
        read: Callable[..., pa.Table] = self.workspace.artifacts.read_table
        try:
            return read(self.row["artifact_uri"], f"{name}.parquet", None, list(filters))
        except _UNREADABLE as error:
            self.missing.append(f"{without}: {error}.")
            return None


@retried
def reported_portfolio(workspace: Workspace, portfolio_id: UUID) -> ReportedRun:
    """A stored portfolio with all that its report shows.

    Raises:
        RunNotFound: where no portfolio of this id is stored.
    """
    with workspace.database.begin() as connection:
        row = stored_portfolio(connection, portfolio_id)
        if row is None:
            raise RunNotFound(
                f"no portfolio {portfolio_id} is stored; check the id, or request it again"
            )
        weights = stored_weights(connection, portfolio_id)
    reading = _PortfolioInputs(workspace, row)
    config, metrics = row["config"], row["metrics"]
    of = "assets" if row["signal_id"] is not None else "strategies"
    first, last = (day(round(row[name].timestamp() * 1e6)) for name in ("first_ts", "last_ts"))
    return ReportedRun(
        run_id=str(portfolio_id),
        name=f"{row['signal_name']}, {row['scheme'].replace('_', ' ')}",
        symbol=f"{row['n_members']} {of}",
        timeframe=row["tf"],
        subject=f"{first} to {last} · {row['n_rebalances']:,} rebalances, {config['rebalance']} · "
        f"{config['cost_bps']:g} bps on what is moved",
        benchmark_name="equal parts, held",
        warnings=(),
        metrics=metrics,
        undefined=row["undefined"],
        risk_free=float(config.get("risk_free") or 0.0),
        liquidated=False,
        series=_series_of(reading),
        closes=None,
        trades=(),
        blocked=(),
        n_blocked=0,
        intervals=None,
        fan=None,
        doubts=None,
        assess="",
        counting_rule="portfolios of every strategy and scheme",
        settings=config,
        provenance={"run_id": str(portfolio_id), **{name: row[name] for name in _IN_FULL}},
        holdings=_holdings(reading, weights),
        is_portfolio=True,
        missing=tuple(reading.missing),
    )


def _series_of(reading: _PortfolioInputs) -> RunSeries | None:
    own = [("run_id", "==", str(reading.row["run_id"]))]
    table = reading.table("equity", own, "Curves and figures by day are not shown")
    if table is None or table.num_rows < 2:
        return None
    ts = table["ts"].cast(pa.int64()).to_numpy()
    equity, drawdown, benchmark = (
        table[name].to_numpy() for name in ("equity", "drawdown", "benchmark")
    )
    return RunSeries(ts, equity, drawdown, np.full(len(ts), np.nan), benchmark)


def _holdings(reading: _PortfolioInputs, weights: Sequence[Mapping[str, Any]]) -> Holdings | None:
    """Weights by rebalance, with each member's risk and correlations where they can be read."""
    row = reading.row
    own = [("run_id", "==", str(row["run_id"]))]
    risk = reading.table("risk_contributions", own, "Risk contributions are not shown")
    if risk is None or not weights:
        return None
    members = risk["member"].to_pylist()
    placed = {name: i for i, name in enumerate(members)}
    stamps = sorted({one["ts"] for one in weights})
    at = {ts: i for i, ts in enumerate(stamps)}
    values = np.zeros((len(stamps), len(members)))
    for one in weights:
        values[at[one["ts"]], placed[one["member"]]] = one["weight"]
    return Holdings(
        members,
        np.array(stamps, np.int64),
        round(row["last_ts"].timestamp() * 1e6),
        values,
        risk["share"].to_numpy(zero_copy_only=False).astype(np.float64),
        _correlations(reading, placed),
    )


def _correlations(reading: _PortfolioInputs, placed: Mapping[str, int]) -> np.ndarray | None:
    row = reading.row
    own = [("signal", "==", row["signal_name"])]
    if row["signal_id"] is None:
        own.append(("scheme", "==", row["scheme"]))
    table = reading.table("correlations", own, "Correlations are not shown")
    if table is None:
        return None
    matrix = np.eye(len(placed))
    for pair in table.select(["member", "other", "correlation"]).to_pylist():
        i, j = placed.get(pair["member"]), placed.get(pair["other"])
        if i is not None and j is not None:
            value = np.nan if pair["correlation"] is None else pair["correlation"]
            matrix[i, j] = matrix[j, i] = value
    return matrix
