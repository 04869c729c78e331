"""Builds result models from rows of the store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from backtest_pipeline.market.errors import RunNotFound
from backtest_pipeline.pipeline.results import (
    Combination,
    CrossSectionResult,
    FoldResult,
    Interval,
    Member,
    Metrics,
    NeighbourhoodResult,
    PortfolioResult,
    RobustnessResult,
    RunResult,
    SweepResult,
    WalkForwardResult,
)
from backtest_pipeline.pipeline.runs.query import run_summary
from backtest_pipeline.pipeline.runs.reports.bands import run_bands
from backtest_pipeline.pipeline.specs import RobustnessSpec, RunSpec, WalkForwardSpec
from backtest_pipeline.pipeline.use_cases.sweep import Exploration
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.report.sweep_page import parameters
from backtest_pipeline.research.ranking.trials import CountingRule
from backtest_pipeline.research.robustness.robustness import NUMBERS
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRIC_NAMES
from backtest_pipeline.storage.run_tables.portfolios import stored_portfolio
from backtest_pipeline.storage.run_tables.recorded_runs import trades_by_gap
from backtest_pipeline.storage.run_tables.runs import runs_by_id
from backtest_pipeline.storage.tables.datasets import (
    dataset_of_key,
    not_fetched_since,
    quality_by_reason,
)
from backtest_pipeline.storage.tables.dimensions import synthetic_among
from backtest_pipeline.strategies.cross_section.definition import KIND
from backtest_pipeline.strategies.registry import DEFAULT_STRATEGY, strategies

Row = Mapping[str, Any]


def run_result(workspace: Workspace, row: Row, spec: RunSpec) -> RunResult:
    """A row of `storage.run_tables.runs.runs_by_id` as a RunResult."""
    bands = run_bands(workspace, row, spec.config().risk_free) if spec.bands else None
    return RunResult(**_of_run(workspace, row, spec), bands=bands)


def robustness_result(
    workspace: Workspace, row: Row, spec: RobustnessSpec, robustness: Row
) -> RobustnessResult:
    """A run's row and its row of `run_robustness` as a RobustnessResult.

    Its intervals are the run's one band, whatever the number of draws of the other methods.
    """
    bands = run_bands(workspace, row, spec.config().risk_free)
    numbers = {name: {**row, **robustness}[name] for name in NUMBERS}
    for name, ends in (bands or {}).items():
        numbers |= {k: v for k, v in zip(_ends(name), ends, strict=True) if k in numbers}
    about = _of_run(workspace, row, spec)
    return RobustnessResult(
        **{**about, "undefined": {**about["undefined"], **robustness["undefined"]}},
        bands=bands,
        **{name: robustness[name] for name in ("draws", "seed", "fragile", "reasons", "envelope")},
        numbers=numbers,
        robustness_uri=robustness["artifact_uri"],
    )


def walk_forward_result(workspace: Workspace, row: Row, spec: WalkForwardSpec) -> WalkForwardResult:
    """A row of `run_tables.walk_forward.current_walk_forwards` and its folds as a result."""
    own = (
        *("verdict", "reason", "threshold", "n_folds", "n_judged", "n_walk_forwards"),
        "declared_at",
        *("efficiency", "train_sharpe", "test_sharpe"),
    )
    return WalkForwardResult(
        **_of_run(workspace, row, spec),
        **{name: row[name] for name in own},
        folds=[_fold(fold) for fold in row["folds"]],
    )


def _of_run(workspace: Workspace, row: Row, spec: RunSpec | WalkForwardSpec) -> dict[str, Any]:
    """The fields that every kind of run result has."""
    asset, tf = [row["symbol"]], [row["tf"]]
    with workspace.database.begin() as connection:
        synthetic = bool(synthetic_among(connection, asset))
        remarks = quality_by_reason(
            connection, workspace.price_dataset, symbols=asset, timeframes=tf
        )
        missing = not_fetched_since(connection, symbols=asset, timeframes=tf)
        by_gap = trades_by_gap(connection, row["run_id"])
    results, strategy = row["results"], row["strategy"]
    is_preset = row["split"] == "full" and row["is_preset"]
    same = (
        *("run_id", "symbol", "first_ts", "last_ts", "n_bars", "sampling", "undefined"),
        "snapshot_id",
    )
    given = spec.strategy or getattr(spec, "preset", None)
    return {
        **{name: row[name] for name in same},
        "strategy": strategy,
        "preset": row["signal_name"] if is_preset else None,
        "params": all_params(strategy, row["params"]) if row["split"] == "full" else row["params"],
        "timeframe": row["tf"],
        "start": spec.start,
        "end": spec.end,
        "synthetic": synthetic,
        "engine": spec.config().engine,
        "pending": results["pending"],
        "liquidated": results["liquidated"],
        "blocked_entries": results["blocked_entries"],
        "conflicting_entries": results["conflicting_entries"],
        "metrics": {name: row[name] for name in METRIC_NAMES},
        "significance": {metric.name: row[metric.name] for metric in FAMILY_METRICS},
        "counting_rule": CountingRule.of(row["split"], (spec.start, spec.end)),
        "rows_by_reason": {str(remark["reason"]): int(remark["rows"]) for remark in remarks},
        "trades_by_gap": {name: n for name, n in by_gap.items() if n},
        "not_fetched_since": missing.get(row["symbol"]),
        "dataset_version_ids": row["dataset_version_ids"],
        "config_hash": row["config_hash"],
        "result_fingerprint": row["result_fingerprint"],
        "artifact_uri": row["artifact_uri"],
        "notes": []
        if given
        else [f"no strategy was given: the default, {DEFAULT_STRATEGY}, was traded"],
    }


def all_params(strategy: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters with their strategy's defaults filled in; unchanged if it no longer exists."""
    known = strategies().get(strategy)
    return known.parse(params).model_dump() if known else params


def _ends(metric: str) -> tuple[str, str]:
    return f"{metric}_low", f"{metric}_high"


def _intervals(bounds: Mapping[str, tuple[float, float]]) -> dict[str, Interval]:
    return {name: (_finite(low), _finite(high)) for name, (low, high) in bounds.items()}


def _fold(fold: Row) -> FoldResult:
    bounds = ("fold", "train_start", "train_end", "test_start", "test_end")
    sides = {
        side: {
            name.removeprefix(f"{side}_"): value
            for name, value in fold.items()
            if name.startswith(f"{side}_") and name not in bounds
        }
        for side in ("train", "test")
    }
    others = {name: fold[name] for name in ("params", "score", "n_combinations")}
    return FoldResult.model_validate({**{name: fold[name] for name in bounds}, **others, **sides})


def sweep_result(exploration: Exploration, best_run: RunResult, top: int) -> SweepResult:
    """A sweep and the run of its best combination as a SweepResult."""
    ranked, around, selection = exploration.ranked, exploration.surroundings, exploration.selection
    last = len(ranked) - 1

    def combination(position: int) -> Combination:
        row = {str(name): float(value) for name, value in ranked.iloc[position].items()}
        return Combination(params=parameters(ranked, position), metrics=_metrics(row))

    return SweepResult(
        strategy=exploration.subject.strategy,
        symbol=exploration.subject.asset,
        timeframe=exploration.subject.timeframe,
        n_bars=exploration.subject.n_bars,
        metric=exploration.metric,
        n_combinations=len(exploration.table),
        left_out=exploration.left_out,
        ranked=[combination(position) for position in range(min(top, len(ranked)))],
        median=combination(last // 2),
        worst=combination(last),
        neighbourhood=NeighbourhoodResult(
            shape=str(around.shape),
            neighbours=len(around.neighbours),
            undefined=around.n_undefined,
            median=around.median,
            worst=around.worst,
            rank=around.rank,
        ),
        best_run=best_run,
        selection=_metrics(
            {
                name: getattr(selection, name)
                for name in ("n_trials", "n_trials_effective", "psr", "dsr", "dsr_effective", "pbo")
            }
        ),
        bands=_intervals(selection.intervals),
        undefined=dict(selection.undefined),
        warning=exploration.warning,
    )


@retried
def cross_section_result(workspace: Workspace, run_id: UUID) -> CrossSectionResult:
    """A stored run that ranks a universe.

    Raises:
        RunNotFound: where it is not stored, or ranks nothing.
        ProvenanceMissing: where its inputs are not recorded, naming what is missing.
    """
    run = run_summary(workspace, run_id)
    if run.split != KIND:
        raise RunNotFound(f"run {run_id} is no cross-section, but {run.split}; see get_run")
    found = run.results[KIND]
    symbols = sorted(dataset_of_key(key)[0].asset for key in run.provenance["dataset_version_ids"])
    notes = [
        f"{asset} is not ranked: it had a bar before the window that cannot be traded on"
        for asset in found.get("dropped", ())
    ]
    if len(symbols) - len(notes) == 2:
        notes.append("an information coefficient of two assets is always 1 or -1")
    same = ("horizon", "dates_with_ic", "quantiles", "rebalances", "mean_turnover", "delisted")
    return CrossSectionResult(
        run_id=run.run_id,
        strategy=run.signal_name,
        params=dict(run.params),
        symbols=symbols,
        start=run.window[0],
        end=run.window[1],
        liquidated=run.results["liquidated"],
        information=found["figures"],
        undefined={**run.undefined, **found["undefined"]},
        notes=notes,
        **{name: found[name] for name in (*same, "delisting_return", "orders_dropped")},
        bars_left_out=found["bars_left_out"],
        **{name: getattr(run, name) for name in ("timeframe", "first_ts", "last_ts", "n_bars")},
        **{name: getattr(run, name) for name in ("synthetic", "metrics", "significance")},
        **{name: run.provenance[name] for name in ("snapshot_id", "dataset_version_ids")},
        **{name: run.provenance[name] for name in ("config_hash", "result_fingerprint")},
        artifact_uri=run.artifact_uri,
    )


def _metrics(values: Mapping[str, float]) -> Metrics:
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def stored_portfolio_result(workspace: Workspace, portfolio_id: UUID) -> PortfolioResult:
    """A stored portfolio, built on demand or by a rollup.

    Raises:
        RunNotFound: for an unknown id.
    """
    with workspace.database.begin() as connection:
        stored = stored_portfolio(connection, portfolio_id)
        if stored is None:
            raise RunNotFound(
                f"no portfolio {portfolio_id} is stored; check the id, or request it again"
            )
        runs = runs_by_id(connection, stored["member_run_ids"])
    return portfolio_result(stored, list(runs.values()))


def portfolio_result(stored: Row, runs: Sequence[Row]) -> PortfolioResult:
    """A row of `run_tables.portfolios.stored_portfolio` with the rows of its members' runs."""
    same = (
        *("scheme", "first_ts", "last_ts", "n_rebalances", "left_out", "metrics", "undefined"),
        *("snapshot_id", "result_fingerprint"),
    )
    return PortfolioResult(
        portfolio_id=stored["run_id"],
        strategy=runs[0]["strategy"] if runs else stored["signal_name"],
        name=stored["signal_name"],
        timeframe=stored["tf"],
        members=[
            Member(**{n: run[n] for n in ("symbol", "run_id", "total_return", "sharpe")})
            for run in runs
        ],
        **{name: stored[name] for name in same},
    )
