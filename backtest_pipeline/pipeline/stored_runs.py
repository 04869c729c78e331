"""Stored runs from Python, in the store that the environment configures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd

from backtest_pipeline.pipeline.cross_section.ranked_account import FILES
from backtest_pipeline.pipeline.replay import export
from backtest_pipeline.pipeline.replay.vectorbt_portfolio import vectorbt_portfolio
from backtest_pipeline.pipeline.result_rows import cross_section_result
from backtest_pipeline.pipeline.results import CrossSectionResult
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


@dataclass(frozen=True)
class CrossSectionDetail:
    """A stored cross-section with its files.

    Attributes:
        summary: its metrics, information coefficients and provenance.
        daily_ic: one row a date: `ts`, `ic` (Spearman), `ic_pearson`, `n_ranked`, `factor_return`,
            returns and turnover of the quantiles, and what was traded; NaN where undefined.
        daily_signals: one row a date and asset of the universe: `ts`, `symbol`, `score`,
            `quantile`.
        daily_weights: one row a date and position, at the close: `ts`, `symbol`, `weight`, a signed
            fraction of the equity.
    """

    summary: CrossSectionResult
    daily_ic: pd.DataFrame
    daily_signals: pd.DataFrame
    daily_weights: pd.DataFrame


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


def get_result(run: UUID | str) -> CrossSectionDetail:
    """A stored cross-section with its information coefficients, signals and weights by date.

    Args:
        run: its id, or the beginning of it.

    Raises:
        RunNotFound: where it is not stored, or is no cross-section.
        ProvenanceMissing: a ValueError, where snapshot_id or dataset_version_ids is missing.
        ResultPathMissing, ArtifactCorrupt: where its files are missing or damaged.

    Examples:
        >>> from backtest_pipeline import execute, get_result
        >>> universe = ["S-BETA", "S-GAMMA"]
        >>> for symbol in universe:
        ...     _ = execute({"symbol": symbol, "strategy": "ema_crossover"})
        >>> rules = '''kind = "cross_section"
        ... name = "strength"
        ... score = "rsi_14"
        ... count = 1'''
        >>> spec = {"kind": "cross_section", "rules": rules, "symbols": universe}
        >>> result = execute(spec)
        >>> list(get_result(result.run_id).daily_weights)
        ['ts', 'symbol', 'weight']
    """
    with open_workspace() as workspace:
        run_id = _id(workspace, run)
        summary = cross_section_result(workspace, run_id)
        query.get_run(workspace, run_id)  # its files are there
        frames = {
            name: workspace.artifacts.read_table(
                summary.artifact_uri, f"{name}.parquet"
            ).to_pandas()
            for name in FILES
        }
    return CrossSectionDetail(summary, **frames)


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


def load_vectorbt(run: UUID | str) -> Any:
    """A stored run as a `vectorbt.Portfolio`: its orders at the prices that they were filled at.

    Its plots and statistics are vectorbt's own; the equity that it shows is that of the run. The
    first call imports vectorbt, which takes about eight seconds; docs/vectorbt.md.

    Args:
        run: its id, or the beginning of it.

    Raises:
        RunNotFound: where it is not stored.
        InvalidInput: for a run of a plan book or of a cross-section, or with leverage.
        CannotReplay: where its bars are not stored any more.
        ConfigurationError: where vectorbt is missing or of another version.

    Examples:
        >>> from backtest_pipeline import execute, load_vectorbt
        >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
        >>> portfolio = load_vectorbt(result.run_id)
        >>> bool(abs(portfolio.total_return() - result.metrics["total_return"]) < 1e-9)
        True
        >>> figure = portfolio.plot()
    """
    with open_workspace() as workspace:
        return vectorbt_portfolio(workspace, _id(workspace, run))


def _id(workspace: Workspace, run: UUID | str) -> UUID:
    return run if isinstance(run, UUID) else query.find_runs(workspace, [run])[0]
