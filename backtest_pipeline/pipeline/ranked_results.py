"""Cross-sections from Python, in the store that the environment configures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pandas as pd

from backtest_pipeline.pipeline import execution
from backtest_pipeline.pipeline.cross_section.cross_section_spec import CrossSectionSpec
from backtest_pipeline.pipeline.cross_section.ranked_account import FILES
from backtest_pipeline.pipeline.result_rows import cross_section_result
from backtest_pipeline.pipeline.results import CrossSectionResult
from backtest_pipeline.pipeline.runs import query
from backtest_pipeline.pipeline.specs import checked
from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline.storage.settings import load_settings


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


def cross_section(
    spec: CrossSectionSpec | Mapping[str, Any], *, rebuild: bool = False
) -> CrossSectionResult:
    """Rank the stored assets at each rebalance, trade the ends of the ranking, and store the run.

    Args:
        spec: the spec, or its fields as a mapping.
        rebuild: compute again even if nothing has changed.

    Raises:
        UnknownName, InvalidInput, RuleError: for a field or strategy that is unknown or invalid.
        BacktestError: where fewer than two assets have stored features.

    Examples:
        >>> from backtest_pipeline import cross_section, execute
        >>> for symbol in ("S-ALPHA", "S-BETA", "S-GAMMA"):
        ...     _ = execute({"symbol": symbol, "strategy": "ema_crossover"})
        >>> rules = '''kind = "cross_section"
        ... name = "strength"
        ... score = "rsi_14"
        ... count = 1'''
        >>> cross_section({"rules": rules}).rebalances["traded"] > 50
        True
    """
    parsed = checked(CrossSectionSpec, spec) if isinstance(spec, Mapping) else spec
    settings = load_settings()
    with open_workspace(settings) as workspace:
        result = execution.execute(workspace, settings, parsed, rebuild=rebuild)
    assert isinstance(result, CrossSectionResult)  # noqa: S101  (it has no other)
    return result


def get_result(run: UUID | str) -> CrossSectionDetail:
    """A stored cross-section with its information coefficients, signals and weights by date.

    Args:
        run: its id, or the beginning of it.

    Raises:
        RunNotFound: where it is not stored, or is no cross-section.
        ProvenanceMissing: a ValueError, where snapshot_id or dataset_version_ids is missing.
        ResultPathMissing, ArtifactCorrupt: where its files are missing or damaged.
    """
    with open_workspace() as workspace:
        (run_id,) = [run] if isinstance(run, UUID) else query.find_runs(workspace, [run])
        summary = cross_section_result(workspace, run_id)
        query.get_run(workspace, run_id)  # its files are there
        frames = {
            name: workspace.artifacts.read_table(
                summary.artifact_uri, f"{name}.parquet"
            ).to_pandas()
            for name in FILES
        }
    return CrossSectionDetail(summary, **frames)
