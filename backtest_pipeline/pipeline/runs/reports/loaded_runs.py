"""Stored runs as objects for notebooks: curves and trades as pandas, figures, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pandas as pd

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.pipeline.runs.reports.report import write_reported
from backtest_pipeline.pipeline.runs.reports.reported_runs import reported_run
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.run_report.contents import ReportedRun
from backtest_pipeline.report.run_snippet import run_snippet
from backtest_pipeline.storage.run_tables.walk_forward import stored_folds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class LoadedRun:
    """A stored run; a notebook shows its tiles and its curve.

    Attributes:
        reported: all that its report shows.
    """

    reported: ReportedRun

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Metrics by name, None where undefined; fractions, not percent."""
        return self.reported.metrics

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Equity, drawdown, exposure and benchmark by mark (tz-aware); empty if they are gone."""
        names = ["equity", "drawdown", "exposure", "benchmark"]
        series = self.reported.series
        if series is None:
            return pd.DataFrame(columns=names)
        return pd.DataFrame({n: getattr(series, n) for n in names}, utc_index(series.ts))

    @cached_property
    def trades(self) -> pd.DataFrame:
        """Its trades in order, with the columns of `backtest_trades`; stamps are tz-aware."""
        table = pd.DataFrame(list(self.reported.trades))
        for name in ("entry_ts", "exit_ts"):
            if name in table:
                table[name] = pd.to_datetime(table[name], unit="us", utc=True)
        return table

    def plot(self) -> Figure:
        """Equity, drawdown and exposure as a Plotly figure."""
        from backtest_pipeline.report.run_figure import run_figure

        return run_figure(self.reported)

    def report(self, path: str | Path, *, replace: bool = False) -> Path:
        """Write its report as one file that opens offline; as `RunResult.report`."""
        return write_reported(self.reported, Path(path), replace=replace)[0]

    def _repr_html_(self) -> str:
        return run_snippet(self.reported)


@dataclass(frozen=True)
class LoadedWalkForward(LoadedRun):
    """A stored walk-forward: the stitched out-of-sample run and its folds.

    Attributes:
        fold_rows: rows of `walk_forward_folds`, in order.
    """

    fold_rows: Sequence[Mapping[str, Any]]

    @cached_property
    def folds(self) -> pd.DataFrame:
        """Its folds in order: windows, the parameters chosen, and metrics of training and test."""
        return pd.DataFrame(list(self.fold_rows))

    def plot(self) -> Figure:
        """The stitched curve with its folds, and the parameters chosen over time."""
        from backtest_pipeline.report.run_figure import walk_forward_figure

        return walk_forward_figure(self.reported, self.fold_rows)


def loaded_run(workspace: Workspace, run_id: UUID) -> LoadedRun:
    """A stored run; raises RunNotFound where it is not stored."""
    return LoadedRun(reported_run(workspace, run_id))


def loaded_walk_forward(workspace: Workspace, run_id: UUID) -> LoadedWalkForward:
    """A stored walk-forward.

    Raises:
        RunNotFound: where it is not stored.
        InvalidInput: for a run that is no walk-forward.
    """
    reported = reported_run(workspace, run_id)
    with workspace.database.begin() as connection:
        folds = stored_folds(connection, run_id)
    if not folds:
        raise InvalidInput(f"run {run_id} is no walk-forward; load_run loads it")
    return LoadedWalkForward(reported, folds)
