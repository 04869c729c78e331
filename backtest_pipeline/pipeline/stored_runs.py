"""Stored runs from Python, in the store that the environment configures."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pandas as pd

from backtest_pipeline.pipeline.replay import export
from backtest_pipeline.pipeline.runs import compare, query
from backtest_pipeline.pipeline.runs.compare import RunComparison
from backtest_pipeline.pipeline.runs.query import RunDetail
from backtest_pipeline.pipeline.runs.reports.loaded_runs import (
    LoadedRun,
    LoadedWalkForward,
    loaded_run,
    loaded_walk_forward,
)
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.run_tables.run_search import RunFilter


def list_runs(filters: RunFilter | None = None, *, limit: int = 50) -> pd.DataFrame:
    """The newest stored runs that match a filter, one per row.

    Args:
        filters: the runs to list; all where None.
        limit: maximum number of rows, at most 1000.

    Examples:
        >>> from backtest_pipeline import RunFilter, execute, list_runs
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> list_runs(RunFilter(symbol="S-ALPHA"))["symbol"].unique().tolist()
        ['S-ALPHA']
    """
    with open_workspace() as workspace:
        return pd.DataFrame(query.list_runs(workspace, filters, limit=limit).rows)


def get_run(run: UUID | str) -> RunDetail:
    """A stored run with configuration, results, metrics, significance and provenance.

    Args:
        run: its id, or the beginning of it.

    Raises:
        RunNotFound: where it is not stored.
        ResultPathMissing: where its series are missing.

    Examples:
        >>> from backtest_pipeline import execute, get_run
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> get_run(result.run_id).metrics["sharpe"] == result.metrics["sharpe"]
        True
    """
    with open_workspace() as workspace:
        return query.get_run(workspace, _id(workspace, run))


def load_run(run: UUID | str) -> LoadedRun:
    """A stored run with its curves, trades, figure and report; a notebook shows its tiles.

    Args:
        run: its id, or the beginning of it.

    Raises:
        RunNotFound: where it is not stored.

    Examples:
        >>> from backtest_pipeline import execute, load_run
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> loaded = load_run(result.run_id)
        >>> len(loaded.trades) == result.metrics["trade_count"]
        True
        >>> len(loaded.plot().data) >= 4
        True
    """
    with open_workspace() as workspace:
        return loaded_run(workspace, _id(workspace, run))


def load_walk_forward(run: UUID | str) -> LoadedWalkForward:
    """A stored walk-forward: as `load_run`, with its folds.

    Args:
        run: id of its stitched run, or the beginning of it.

    Raises:
        RunNotFound: where it is not stored.
        InvalidInput: for a run that is no walk-forward.

    Examples:
        >>> from backtest_pipeline import execute, load_walk_forward
        >>> spec = {"kind": "walkforward", "symbol": "S-ALPHA", "strategy": "ema_crossover"}
        >>> result = execute(spec | {"params": {"fast": [5, 10], "slow": [30]}, "test_days": 365})
        >>> len(load_walk_forward(result.run_id).folds) == result.n_folds
        True
    """
    with open_workspace() as workspace:
        return loaded_walk_forward(workspace, _id(workspace, run))


def compare_runs(*runs: UUID | str) -> RunComparison:
    """Compare two or more stored runs: configuration, metrics, data, code; raises as `get_run`.

    Examples:
        >>> from backtest_pipeline import compare_runs, execute
        >>> runs = [
        ...     execute({"symbol": "S-ALPHA", "strategy": strategy})
        ...     for strategy in ("ema_crossover", "rsi_mean_revert")
        ... ]
        >>> comparison = compare_runs(*(run.run_id for run in runs))
    """
    with open_workspace() as workspace:
        return compare.compare_runs(workspace, [_id(workspace, run) for run in runs])


def export_bundle(run: UUID | str, path: str | Path) -> Path:
    """Write a run as one .zip file that verifies itself; see docs/results.md.

    Args:
        run: its id, or the beginning of it.
        path: the file, or a folder to put `<run id>.zip` in.

    Examples:
        >>> import tempfile
        >>> from backtest_pipeline import execute, export_bundle
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> export_bundle(result.run_id, tempfile.mkdtemp()).suffix
        '.zip'
    """
    with open_workspace() as workspace:
        return export.export_bundle(workspace, _id(workspace, run), Path(path))


def _id(workspace: Workspace, run: UUID | str) -> UUID:
    return run if isinstance(run, UUID) else query.find_runs(workspace, [run])[0]
