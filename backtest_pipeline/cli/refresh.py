"""`backtest-pipeline refresh` and `demo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from backtest_pipeline.launch import RefreshResult
    from backtest_pipeline.pipeline.workspace import Workspace

from backtest_pipeline.cli.console import (
    console,
    fail,
    print_json,
    progress_shown,
    rows_table,
    say,
    say_where_the_cache_ends,
)
from backtest_pipeline.cli.options import (
    AsJson,
    Assets,
    Bars,
    FullRebuild,
    Timeframes,
    split,
    split_symbols,
)

# Neighbours in the project's list, so that one range run covers them.
DEMO_TIMEFRAMES = ("4H", "12H", "1D", "2D", "3D", "1W")
_SHOWN = 8
_MOST_NAMED = 20

app = typer.Typer()


@app.command()
def demo(
    *,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the sample market and all that was made of it.")
    ] = False,
) -> None:
    """Run the whole pipeline on the synthetic sample market and show the results."""
    if remove:
        _remove_sample()
        return
    console.print(
        "Refreshing 12 [bold]synthetic[/] assets: bars -> features -> signals -> backtests -> "
        "portfolios"
    )
    stored = _refresh(None, DEMO_TIMEFRAMES, "", full_rebuild=False, as_json=False, sample=True)
    say(
        f"the report of the run with the highest Sharpe ratio of {len(stored.runs):,}, a choice "
        f"that only `leaderboard` counts; to open in a browser: {_best_report(stored).as_uri()}"
    )
    console.print(
        "Next: [bold]make up[/] opens the Dagster UI on http://127.0.0.1:3000, where each asset "
        "and timeframe can be materialized,\nand [bold]backtest-pipeline run --signal rsi "
        "--asset S-ALPHA --tf 1D --start 2024-01-01[/] runs one backtest.",
        highlight=False,
    )


def _best_report(stored: RefreshedStore) -> Path:
    """Assess the run with the best Sharpe ratio, and write its report into the home folder."""
    from backtest_pipeline.pipeline.execution import execute
    from backtest_pipeline.pipeline.runs.query import get_run
    from backtest_pipeline.pipeline.runs.reports.report import write_report
    from backtest_pipeline.pipeline.runs.summary import by_sharpe
    from backtest_pipeline.pipeline.specs import RobustnessSpec
    from backtest_pipeline.pipeline.workspace import open_workspace
    from backtest_pipeline.storage.settings import load_settings

    settings, best = load_settings(bars=""), by_sharpe(stored.runs)[0]
    with open_workspace(settings) as workspace:
        config = get_run(workspace, best["run_id"]).config
        given = {n: v for n, v in config.items() if n in RobustnessSpec.model_fields}
        execute(workspace, settings, RobustnessSpec.model_validate(given))
        path = settings.home / "best_run.html"
        return write_report(workspace, best["run_id"], path, replace=True)[0]


def _remove_sample() -> None:
    from backtest_pipeline.launch import forget_partitions
    from backtest_pipeline.pipeline.runs.retention import remove_source
    from backtest_pipeline.pipeline.workspace import open_workspace
    from backtest_pipeline.sources.sample import SampleMarket

    with open_workspace() as workspace:
        symbols, runs = remove_source(workspace, SampleMarket.name)
    gone = forget_partitions({*symbols, *SampleMarket().symbols()})
    if gone:
        say(f"deleted from Dagster: the partitions of {', '.join(gone)}")
    if not symbols:
        say("the store has no asset of the sample market")
        return
    say(f"removed {', '.join(symbols)}: {runs:,} runs, and all else that was made of them")


@app.command()
def refresh(
    *,
    assets: Assets = "",
    timeframes: Timeframes = "",
    bars: Bars = None,
    full_rebuild: FullRebuild = False,
    as_json: AsJson = False,
) -> None:
    """Refresh bars, features, signals, backtests and portfolios, as one Dagster run."""
    _refresh(
        split_symbols(assets),
        split(timeframes),
        str(bars or ""),
        full_rebuild=full_rebuild,
        as_json=as_json,
    )


def _refresh(
    assets: Sequence[str] | None,
    timeframes: Sequence[str] | None,
    bars: str,
    *,
    full_rebuild: bool,
    as_json: bool,
    sample: bool = False,
) -> RefreshedStore:
    """Refresh through Dagster, then print the best and worst of the stored runs; returns them."""
    with progress_shown() as progress:
        progress("loading", 0, 1)
        from backtest_pipeline.cli.up import ensure_schema
        from backtest_pipeline.storage.settings import load_settings

        settings = load_settings(**({"bars": ""} if sample else {}))
        settings.bars_of(bars or ("the sample market" if sample else ""))
        ensure_schema(settings)
        from backtest_pipeline.launch import refresh as launch

        progress("loading", 1, 1)
        result = launch(
            bars=bars or settings.bars,
            assets=assets,
            timeframes=timeframes,
            full_rebuild=full_rebuild,
            progress=progress,
        )
    stored = _stored(result)
    if as_json:
        print_json(_as_json(result, stored))
    elif not result.failures:
        _show(stored, result.without_bars)
        for sentence in result.left_out[:_MOST_NAMED]:
            say(f"left out: {sentence}")
        if len(result.left_out) > _MOST_NAMED:
            say(f"left out: {len(result.left_out) - _MOST_NAMED:,} more parts; --json names them")
    partitions = len(result.assets) * len(result.timeframes)
    anything = stored.runs or stored.failed_presets or result.failures
    if len(result.without_bars) == partitions or not anything:
        fail(f"the source has no usable bars: {_first(result.without_bars)}")
    if result.failures:
        fail("\n".join(result.failures))
    if stored.failed_presets:
        shown = [f"preset {p} fails: {e}" for p, e in stored.failed_presets.items()][:_MOST_NAMED]
        more = len(stored.failed_presets) - len(shown)
        shown += [f"and {more:,} more; --json names them"] if more else []
        fail("\n".join([*shown, "all else is stored; the next refresh tries these again"]))
    return stored


@dataclass(frozen=True)
class RefreshedStore:
    """What the store holds for the refreshed assets and timeframes.

    Attributes:
        runs: rows of `storage.run_tables.run_figures.current_figures`.
        skipped: rows skipped or flagged, by reason.
        not_fetched_since: by asset, when the first bar closes that the cache did not have.
        remarks: remarks on assets, such as reused tickers and delistings.
        left_out_presets: presets that refreshes leave out, and why.
        failed_presets: presets that failed on a partition of these, and why.
        portfolios: rows of `storage.run_tables.portfolios.current_portfolio_figures`.
        database, folder: where rows and files are stored.
    """

    runs: Sequence[Mapping[str, Any]]
    skipped: Sequence[Mapping[str, Any]]
    not_fetched_since: Mapping[str, datetime]
    remarks: Sequence[Mapping[str, Any]]
    left_out_presets: Mapping[str, str]
    failed_presets: Mapping[str, str]
    portfolios: Sequence[Mapping[str, Any]]
    database: str
    folder: str


def _stored(result: RefreshResult) -> RefreshedStore:
    from backtest_pipeline.pipeline.workspace import open_workspace
    from backtest_pipeline.storage.settings import load_settings

    retry_s = load_settings().store_retry_s  # the refresh is done: an outage now must not fail it
    with open_workspace(retry_s=retry_s) as workspace:
        return workspace.database.retrying("stored results", lambda: _read(workspace, result))


def _read(workspace: Workspace, result: RefreshResult) -> RefreshedStore:
    from backtest_pipeline.market.partitions import Partition
    from backtest_pipeline.pipeline.presets import failed_on_partitions, left_out_presets
    from backtest_pipeline.pipeline.runs.summary import TABLE_METRICS
    from backtest_pipeline.storage.run_tables.portfolios import current_portfolio_figures
    from backtest_pipeline.storage.run_tables.run_figures import current_figures
    from backtest_pipeline.storage.tables.asset_identity import remarks_of
    from backtest_pipeline.storage.tables.datasets import not_fetched_since, quality_by_reason

    assets, timeframes = result.assets, result.timeframes
    with workspace.database.begin() as connection:
        runs = current_figures(connection, TABLE_METRICS, symbols=assets, timeframes=timeframes)
        skipped = quality_by_reason(
            connection, workspace.price_dataset, symbols=assets, timeframes=timeframes
        )
        missing = not_fetched_since(connection, symbols=assets, timeframes=timeframes)
        remarks = remarks_of(connection, assets)
        portfolios = current_portfolio_figures(connection, timeframes)
        where, folder = workspace.database.where, workspace.artifacts.where
        absent = left_out_presets(workspace)
        failed = failed_on_partitions(
            workspace, {Partition(asset, tf) for asset in assets for tf in timeframes}
        )
    return RefreshedStore(
        runs, skipped, missing, remarks, absent, failed, portfolios, where, folder
    )


def _as_json(result: RefreshResult, stored: RefreshedStore) -> dict[str, Any]:
    from backtest_pipeline.pipeline.runs.summary import run_rows

    return {
        "dagster_runs": result.run_ids,
        "failures": result.failures,
        "runs": [
            {"run_id": str(run["run_id"]), **row}
            for run, row in zip(stored.runs, run_rows(stored.runs), strict=True)
        ],
        "portfolios": [
            {
                "run_id": str(row["run_id"]),
                "timeframe": row["tf"],
                "strategy": row["signal_name"],
                "scheme": row["scheme"],
                "members": int(row["n_members"]),
                "metrics": row["metrics"],
                "undefined": row["undefined"],
            }
            for row in stored.portfolios
        ],
        "without_bars": result.without_bars,
        "left_out": list(result.left_out),
        "rows_by_reason": [
            {"reason": row["reason"], "rows": int(row["rows"]), "assets": int(row["assets"])}
            for row in stored.skipped
        ],
        "not_fetched_since": {
            asset: since.isoformat() for asset, since in stored.not_fetched_since.items()
        },
        "identity": list(stored.remarks),
        "left_out_presets": dict(stored.left_out_presets),
        "failed_presets": dict(stored.failed_presets),
        "database": stored.database,
        "artifacts": stored.folder,
    }


def _show(stored: RefreshedStore, without_bars: Mapping[str, str]) -> None:
    from backtest_pipeline.pipeline.runs.summary import (
        beating_benchmark,
        by_sharpe,
        real_runs,
        run_rows,
    )
    from backtest_pipeline.pipeline.stages.rollups import scheme_rows

    runs = real_runs(stored.runs)
    ranked = by_sharpe(runs)
    if ranked:
        console.print(rows_table("Best runs by Sharpe", run_rows(ranked[:_SHOWN])))
        if len(ranked) > _SHOWN:
            console.print(rows_table("Worst runs", run_rows(ranked[:-4:-1])))
    by_scheme = scheme_rows(stored.portfolios)
    if by_scheme:
        console.print(rows_table("Portfolios by weighting scheme, medians", by_scheme))
    if stored.skipped:
        console.print(rows_table("Source rows skipped or flagged", stored.skipped))
    say_where_the_cache_ends(stored.not_fetched_since)
    if stored.remarks:
        console.print(rows_table("Remarks on assets", stored.remarks))
    for preset, leak in stored.left_out_presets.items():
        say(f"preset {preset} is left out: {leak}")
    if runs:
        trades = int(sum(run["trade_count"] for run in runs))
        say(
            f"{len(runs)} backtests, {trades:,} trades; "
            f"{beating_benchmark(runs)} runs beat buy and hold. "
            "The best of many runs looks better than it is."
        )
    if without_bars:
        say(f"without bars: {_first(without_bars)}")
    say(f"database: {stored.database}")
    say(f"files:    {stored.folder}")


def _first(without_bars: Mapping[str, str]) -> str:
    """The first partition without bars and the reason, and the number of others."""
    if not without_bars:
        return "too few complete bars for a backtest; see table data_quality"
    partition, why = next(iter(without_bars.items()))
    others = len(without_bars) - 1
    return f"{partition}: {why}" + (f"; and {others} more partitions" if others else "")
